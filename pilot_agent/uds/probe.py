"""Whether somebody else (SPIRE, say) serves SDS on a Unix socket: the probe, and what it says of the workload's one.

Asks and judges only. Removing a stale socket is for who wants to listen there; the bootstrap takes the answer as
`Surroundings`. Runs before Envoy is spawned, so it speaks the few bytes of HTTP/2 itself instead of importing grpc.
"""

import os
import socket
import stat
import time
from pathlib import Path
from typing import Literal, NamedTuple

from pilot_agent.clock import Deadline, SystemClock
from pilot_agent.errors import SettingsError
from pilot_agent.uds.listener import CREDENTIALS, LONGEST_PATH, behind, check_length

DEFAULT_NAME = "socket"
TIMEOUT_S = 1.0
RETRY_S = 0.01


# RFC 9113, 3.4: a client opens with this and a SETTINGS frame, a server with a SETTINGS frame of its own.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
EMPTY_SETTINGS = bytes(3) + b"\x04" + bytes(5)
FRAME_HEADER_SIZE = 9
LARGEST_FRAME = 1 << 14


class WorkloadSocket(NamedTuple):
    """`external`: somebody serves the workload's identity there; `agent`: another pilot-agent does; `none`: nothing is
    there; `stale`: nobody answers."""

    path: Path
    state: Literal["external", "agent", "none", "stale"]

    @property
    def is_external(self) -> bool:
        return self.state == "external"


def find_workload_socket(directory: Path, name: str = DEFAULT_NAME, timeout: float = TIMEOUT_S) -> WorkloadSocket:
    """Who serves the workload's SDS socket (reference security-xds.md, section 1). Removes nothing.

    Raises SettingsError for a name that is a path, and for one that is not the default and has no live SDS behind it:
    such a name says that somebody else serves it.
    """
    variable = "WORKLOAD_IDENTITY_SOCKET_FILE"
    if "/" in name or name in ("", ".", ".."):
        raise SettingsError(f"{variable}: {name!r} is not a file name: give the name alone; it is in {directory}")
    path = directory / name
    check_length(path, variable)
    if _is_candidate(path):
        pid = server_on(path, timeout)
        if pid is not None:
            return WorkloadSocket(path, "agent" if is_agent(path, pid) else "external")
        if name == DEFAULT_NAME:
            return WorkloadSocket(path, "stale")
        problem = f"nothing answers gRPC on {path}"
    elif name == DEFAULT_NAME:
        return WorkloadSocket(path, "none")
    else:
        problem = f"there is no socket {path}"
    raise SettingsError(f"{variable}: {problem}: start what serves SDS there first, or leave the variable unset")


def _is_candidate(path: Path) -> bool:
    """Anything but a regular file, as Istio looks at it: what is no socket at all will not answer either."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def is_serving_http2(path: Path | str, timeout: float = TIMEOUT_S) -> bool:
    """Whether a server on the Unix socket `path` speaks HTTP/2, which gRPC is, within `timeout` seconds.

    A listener that takes the connection and says nothing, or something else, is none.
    """
    return server_on(path, timeout) is not None


def server_on(path: Path | str, timeout: float = TIMEOUT_S) -> int | None:
    """The pid of such a server, as `is_serving_http2` means it; None where there is none."""
    address = os.fspath(path)
    if len(os.fsencode(address)) > LONGEST_PATH:
        return None
    deadline = Deadline.after(timeout, SystemClock())
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            _connect(connection, address, deadline)
            connection.sendall(PREFACE + EMPTY_SETTINGS)
            if not _is_settings(_read(connection, FRAME_HEADER_SIZE, deadline)):
                return None
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        except (OSError, ValueError):
            return None
    pid: int = CREDENTIALS.unpack(credentials)[0]
    return pid


def is_agent(path: Path, pid: int) -> bool:
    """Whether the process `pid`, which serves `path`, is a pilot-agent: those have another socket beside it."""
    return behind(path, pid).exists()


def _connect(connection: socket.socket, address: str, deadline: Deadline) -> None:
    """Raises OSError, TimeoutError when the time is over."""
    while True:
        connection.settimeout(_time_left(deadline))
        try:
            connection.connect(address)
        except BlockingIOError:
            time.sleep(RETRY_S)  # its backlog is full, and a Unix socket does not wait for that: a busy server
        else:
            return


def _read(connection: socket.socket, size: int, deadline: Deadline) -> bytes:
    data = b""
    while len(data) < size:
        connection.settimeout(_time_left(deadline))
        part = connection.recv(size - len(data))
        if not part:
            break
        data += part
    return data


def _time_left(deadline: Deadline) -> float:
    if deadline.is_over:
        raise TimeoutError  # and not a timeout of 0, which would mean not to wait at all
    return deadline.left


def _is_settings(header: bytes) -> bool:
    """Length (3 bytes), type 4, flags without ACK, stream 0: the frame every HTTP/2 server opens with."""
    if len(header) < FRAME_HEADER_SIZE:
        return False
    length = int.from_bytes(header[:3], "big")
    is_well_sized = length <= LARGEST_FRAME and length % 6 == 0
    return is_well_sized and header[3] == 4 and not header[4] & 1 and int.from_bytes(header[5:], "big") == 0
