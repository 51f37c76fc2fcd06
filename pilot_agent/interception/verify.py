"""--run-validation: a connection that capture must redirect, and whether it was (reference iptables.md, section 13).

As the proxy's user, on lo, to an address that is not 127.0.0.1: Istio's rule for Envoy's own connections sends it to
the inbound port, where we listen. Run as root the connection is made by a child that takes the proxy's uid and gid.
"""

import os
import select
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from pilot_agent.interception.canonical import group_id, port_number, user_id
from pilot_agent.interception.capture import Capture

SO_ORIGINAL_DST = 80
IPPROTO_IPV6 = 41
RETRY_S = 1.0
ATTEMPT_S = 0.5
BACKLOG = 16


class Failure(NamedTuple):
    """`step` is what did not happen, in words."""

    family: int
    step: str

    def __str__(self) -> str:
        return f"IPv{self.family}: {self.step}"


class Check(NamedTuple):
    """One family's: where to listen, and what to connect to from where."""

    family: int
    loopback: str
    target: str

    @property
    def address_family(self) -> socket.AddressFamily:
        return socket.AF_INET if self.family == 4 else socket.AF_INET6


CHECKS = {4: Check(4, "127.0.0.1", "127.0.0.6"), 6: Check(6, "::1", "::6")}


def verify(capture: Capture, probe_port: int, timeout_s: float) -> list[Failure]:
    """What is not captured of the families that should be; empty when all is well. At most `timeout_s` for each."""
    return [
        failure
        for family in capture.families
        if (failure := _verify(CHECKS[family], capture, probe_port, timeout_s)) is not None
    ]


def _verify(check: Check, capture: Capture, probe_port: int, timeout_s: float) -> Failure | None:
    with ExitStack() as stack:
        problems: list[str] = []
        listeners = list(_listen(check, (capture.outbound_port, capture.inbound_port), problems, stack))
        if not listeners:
            return Failure(check.family, f"no listener available: {', '.join(problems)}")
        client = _connect_as_proxy(check, capture, probe_port, timeout_s)
        try:
            return _wait(check, listeners, client, probe_port, timeout_s)
        finally:
            client.end()


def _listen(check: Check, ports: Sequence[str], problems: list[str], stack: ExitStack) -> Iterator[socket.socket]:
    """One of two is enough: Envoy may have them already."""
    for port in ports:
        listener = stack.enter_context(socket.socket(check.address_family, socket.SOCK_STREAM))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            listener.bind((check.loopback, port_number(port)))
            listener.listen(BACKLOG)
        except OSError as error:
            problems.append(f"{check.loopback}:{port}: {error.strerror}")
            continue
        listener.setblocking(False)
        yield listener


class _Client:
    """The child that connects; `said` is what it last told of its attempts."""

    def __init__(self, pid: int, words: int) -> None:
        self._pid, self._words = pid, words
        self.said = ""

    def fileno(self) -> int:
        return self._words

    def read(self) -> bool:
        """Whether it may say more."""
        data = os.read(self._words, 4096)
        lines = data.decode().splitlines()
        self.said = lines[-1] if lines else self.said
        return bool(data)

    def end(self) -> None:
        os.close(self._words)
        try:
            os.kill(self._pid, 9)
        except ProcessLookupError:
            pass
        os.waitpid(self._pid, 0)


def _connect_as_proxy(check: Check, capture: Capture, port: int, timeout_s: float) -> _Client:
    reads, writes = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writes)
        return _Client(pid, reads)
    try:
        os.close(reads)
        os.write(writes, f"{_become(capture)}\n".encode())
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            os.write(writes, f"{_attempt(check, port)}\n".encode())
            time.sleep(RETRY_S)
    finally:
        os._exit(0)


def _become(capture: Capture) -> str:
    """Take the proxy's user; what keeps it from it is said, and the attempt is made all the same."""
    if os.geteuid() != 0:
        own = str(os.geteuid())
        known = own in capture.uids or str(os.getegid()) in capture.gids
        return "" if known else f"it was made as uid {own}, which is not the proxy's"
    try:
        os.setgroups([])
        os.setgid(group_id(capture.gids[0]))
        os.setuid(user_id(capture.uids[0]))
    except (OSError, ValueError, IndexError) as error:
        return f"it could not be made as the proxy's user: {error}"
    return ""


def _attempt(check: Check, port: int) -> str:
    """Empty when it was connected."""
    with socket.socket(check.address_family, socket.SOCK_STREAM) as connection:
        connection.settimeout(ATTEMPT_S)
        try:
            connection.bind((check.loopback, 0))
            connection.connect((check.target, port))
            connection.recv(16)
        except OSError as error:
            return f"{check.target}:{port} as the proxy's user: {error.strerror or error}"
    return ""


def _wait(
    check: Check, listeners: Sequence[socket.socket], client: _Client, probe_port: int, timeout_s: float
) -> Failure | None:
    deadline = time.monotonic() + timeout_s
    landed = ""
    sources: list[socket.socket | _Client] = [*listeners, client]
    while (left := deadline - time.monotonic()) > 0:
        for source in select.select(sources, (), (), left)[0]:
            if isinstance(source, _Client):
                if not source.read():
                    sources.remove(source)
                continue
            port = _original_port(source, check)
            if port == probe_port:
                return None
            if port is not None:
                landed = f"a connection came whose original port was {port}, not {probe_port}"
    reason = landed or client.said or "nothing came"
    return Failure(
        check.family,
        f"a connection to {check.target}:{probe_port} did not reach {check.loopback} within {timeout_s:g} s: {reason}",
    )


def _original_port(listener: socket.socket, check: Check) -> int | None:
    """Of the connection that waits; it is told to its sender as well."""
    try:
        connection, _ = listener.accept()
    except OSError:
        return None
    with connection:
        level = socket.SOL_IP if check.family == 4 else IPPROTO_IPV6
        try:
            port: int = struct.unpack_from("!2xH", connection.getsockopt(level, SO_ORIGINAL_DST, 28))[0]
            connection.send(str(port).encode())
        except OSError:
            return None  # it came without a redirect
        return port
