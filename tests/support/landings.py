"""Two namespaces with cables between them, listeners on both sides, and packets of which it is seen where they land.

A socket belongs to the namespace, and to the user and the group, of the thread that made it: so each packet costs one
thread, and no process. The port of the sender is never used twice, for conntrack remembers.
"""

import contextlib
import ctypes
import itertools
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from tests.support.namespaces import Namespace, namespace

INTERFACES = ("eth0", "net1", "vnet0")
TCP_PORTS = (22, 53, 80, 443, 3306, 8080, 8888, 9999, 15008, 15020, 15021, 15090, 25008, 27017)
UDP_PORTS = (53, 8080, 9999)
OUTBOUND, INBOUND, DNS = 15001, 15006, 15053
AGENT = 1337
PATIENCE_SECONDS = 3.0
_IPV6_TRANSPARENT = 75
_libc = ctypes.CDLL(None, use_errno=True)

POD, PEER = "pod", "peer"


def pod_address(family: int, interface: str) -> str:
    number = INTERFACES.index(interface)
    return f"192.168.{77 + number}.1" if family == 4 else f"fd00:77:{number}::1"


def peer_address(family: int, interface: str) -> str:
    return pod_address(family, interface)[:-1] + "2"


class Sending(NamedTuple):
    """`source` "": the kernel chooses. `device`: "" or the interface it must leave by."""

    protocol: str
    destination: str
    port: int
    source: str = ""
    uid: int = 0
    gid: int = 0
    mark: int = 0
    device: str = ""

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.destination else socket.AF_INET


class Landed(NamedTuple):
    """`side` is "" when it did not land anywhere in time. `source`: what the kernel chose, with the port."""

    side: str
    port: int
    source: tuple[str, int]


class Stand:
    def __init__(self, pod: Namespace, peer: Namespace, stack: ExitStack) -> None:
        self.pod, self.peer = pod, peer
        self._stack = stack
        self._listeners: dict[int, tuple[str, int, socket.socket]] = {}
        self._poll = stack.enter_context(select.epoll())
        self._source_ports = itertools.count(28000)

    def listen(self) -> None:
        self.pod.call(lambda: self._listen(POD, (*TCP_PORTS, OUTBOUND, INBOUND, DNS), UDP_PORTS))
        self.peer.call(lambda: self._listen(PEER, (*TCP_PORTS, OUTBOUND, INBOUND), UDP_PORTS))

    def _listen(self, side: str, tcp: tuple[int, ...], udp: tuple[int, ...]) -> None:
        for family, anywhere, here in ((socket.AF_INET, "0.0.0.0", "127.0.0.1"), (socket.AF_INET6, "::", "::1")):
            for port in tcp:
                self._add(side, family, socket.SOCK_STREAM, anywhere, port)
            for port in udp:
                self._add(side, family, socket.SOCK_DGRAM, anywhere, port)
            if side == POD:
                # As the agent does: its answers come from where the queries were redirected to, and are of its user,
                # by which the rules know the zone of connection tracking.
                with acting_as(AGENT, AGENT):
                    self._add(side, family, socket.SOCK_DGRAM, here, DNS)

    def _add(self, side: str, family: socket.AddressFamily, kind: socket.SocketKind, host: str, port: int) -> None:
        made = self._stack.enter_context(socket.socket(family, kind | socket.SOCK_NONBLOCK))
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if port == INBOUND:
                set_transparent(made)
        made.bind((host, port))
        if kind == socket.SOCK_STREAM:
            made.listen()
        self._listeners[made.fileno()] = (side, port, made)
        self._poll.register(made, select.EPOLLIN)

    def send(self, side: str, sending: Sending, within: float = PATIENCE_SECONDS) -> Landed:
        """A connection, or a datagram; a connection is seen to work both ways, a query of DNS to get its answer."""
        where = self.pod if side == POD else self.peer
        with where.call(lambda: self._sent(sending)) as client:
            source = client.getsockname()[:2]
            return self._landed(client, source, within)

    def _sent(self, sending: Sending) -> socket.socket:
        kind = socket.SOCK_STREAM if sending.protocol == "tcp" else socket.SOCK_DGRAM
        with acting_as(sending.uid, sending.gid):
            made = socket.socket(sending.family, kind | socket.SOCK_NONBLOCK)
        if sending.protocol == "tcp":  # no TIME_WAIT
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        if sending.mark:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, sending.mark)
        if sending.device:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, sending.device.encode())
        made.bind((sending.source, next(self._source_ports)))
        made.connect_ex((sending.destination, sending.port))
        if sending.protocol == "udp":
            with contextlib.suppress(PermissionError):  # dropped on the way out
                made.send(b"query")
        return made

    def _landed(self, client: socket.socket, source: tuple[str, int], within: float) -> Landed:
        deadline = time.monotonic() + within
        while (left := deadline - time.monotonic()) > 0:
            for descriptor, _ in self._poll.poll(left):
                side, port, listener = self._listeners[descriptor]
                is_ours = self._accept if listener.type == socket.SOCK_STREAM else self._receive
                if is_ours(listener, client, source, is_answered=port == DNS):
                    return Landed(side, port, source)
        return Landed("", 0, source)

    def _accept(self, listener: socket.socket, client: socket.socket, source: tuple[str, int], **_: bool) -> bool:
        connection, peer = listener.accept()
        with connection:
            if peer[:2] != source:
                return False
            for one, other in ((client, connection), (connection, client)):
                one.settimeout(PATIENCE_SECONDS)
                other.settimeout(PATIENCE_SECONDS)
                one.send(b"data")
                assert other.recv(10) == b"data", "the packets after the first go the same way"
            return True

    @staticmethod
    def _receive(listener: socket.socket, client: socket.socket, source: tuple[str, int], *, is_answered: bool) -> bool:
        _, peer = listener.recvfrom(100)
        if peer[:2] != source:
            return False
        if is_answered:
            listener.sendto(b"answer", peer)
            client.settimeout(PATIENCE_SECONDS)
            assert client.recv(10) == b"answer"
        return True


@contextmanager
def acting_as(uid: int, gid: int) -> Iterator[None]:
    """This thread alone, and only for what it makes: it keeps the rights of root. The owner that iptables sees."""
    _libc.setfsgid(gid)
    _libc.setfsuid(uid)
    try:
        yield
    finally:
        _libc.setfsuid(0)
        _libc.setfsgid(0)


def set_transparent(made: socket.socket) -> None:
    if made.family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
    else:
        made.setsockopt(socket.SOL_IP, socket.IP_TRANSPARENT, 1)


@contextmanager
def stand(more_of_peer: tuple[str, ...]) -> Iterator[Stand]:
    """`more_of_peer`: addresses that the pod reaches by its default route, through eth0."""
    with ExitStack() as stack:
        pod, peer = (stack.enter_context(namespace(role)) for role in (POD, PEER))
        for interface in INTERFACES:
            _run("ip", "-n", pod.name, *f"link add {interface} type veth peer {interface} netns {peer.name}".split())
        batch(pod, [*_addresses(pod_address), "addr add ::6/128 dev lo nodad", *_default_routes("eth0", peer_address)])
        more = [f"addr add {each} dev eth0{' nodad' * (':' in each)}" for each in more_of_peer]
        batch(peer, [*_addresses(peer_address), *more])
        batch(peer, [line for each in INTERFACES for line in _default_routes(each, pod_address)])
        made = Stand(pod, peer, stack)
        made.listen()
        yield made


def _addresses(address: Callable[[int, str], str]) -> list[str]:
    lines = []
    for interface in INTERFACES:
        lines += [f"addr add {address(4, interface)}/24 dev {interface}"]
        lines += [f"addr add {address(6, interface)}/64 dev {interface} nodad", f"link set {interface} up"]
    return lines


def _default_routes(interface: str, gateway: Callable[[int, str], str]) -> list[str]:
    """One per interface, so that a socket bound to it finds a way to everything."""
    metric = 10 + INTERFACES.index(interface)
    return [
        f"route add {everything} via {gateway(family, interface)} dev {interface} metric {metric}"
        for family, everything in ((4, "0.0.0.0/0"), (6, "::/0"))
    ]


def batch(where: Namespace, lines: list[str]) -> None:
    """Commands of `ip`, in one process."""
    where_is = ("ip", "-n", where.name, "-batch", "-")
    subprocess.run(where_is, input="\n".join(lines), check=True, capture_output=True, text=True, timeout=30)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30)
