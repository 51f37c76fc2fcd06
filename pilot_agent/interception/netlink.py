"""The kernel's routing socket: rules, routes and addresses of the calling thread's network namespace, read and changed.

As the kernel has them and without an opinion: `routes` has one. Our own, since pyroute2 takes 0.1 s and 20 MiB to
import (a whole run is to take 0.15 s), and `ip`, 5 ms a call, is not in every image of a proxy. Here a run's five
questions take 0.4 ms together. Messages: rtnetlink(7), netlink(7).
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

Attributes = dict[int, bytes]

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP, _INTERRUPTED, _EXCL, _CREATE = 0x1, 0x4, 0x300, 0x10, 0x200, 0x400
_NESTED_MASK = 0x3FFF
_STRICT = 12
"""Socket option NETLINK_GET_STRICT_CHK: the kernel picks what is asked for, where it can (4.20 and later)."""
_TIMEOUT_SECONDS = 10
_MOST_TRIES = 10

LOOPBACK_INDEX = 1
"""Of lo, in every network namespace."""


class Kind(NamedTuple):
    """Numbers of the messages that make, delete and ask, and the shape of what follows the header."""

    name: str
    new: int
    delete: int
    get: int
    body: struct.Struct


RULE = Kind("rule", 32, 33, 34, struct.Struct("=BBBBBBBBI"))
"""family, destination length, source length, tos, table, -, -, action, flags"""
ROUTE = Kind("route", 24, 25, 26, struct.Struct("=BBBBBBBBI"))
"""family, destination length, source length, tos, table, protocol, scope, type, flags"""
ADDRESS = Kind("address", 20, 21, 22, struct.Struct("=BBBBI"))
"""family, length, flags, scope, index"""


class Message(NamedTuple):
    """`body`: the fields of its kind."""

    body: tuple[int, ...]
    attributes: Attributes

    def number(self, attribute: int) -> int | None:
        value = self.attributes.get(attribute)
        return None if value is None else struct.unpack("=I", value[:4])[0]


class Netlink:
    """One routing socket. A context manager. Methods raise OSError, with the kernel's errno."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.settimeout(_TIMEOUT_SECONDS)
        self._sequence = 0
        try:
            self._socket.bind((0, 0))
            self._socket.setsockopt(270, _STRICT, 1)  # SOL_NETLINK
        except OSError:
            pass  # an old kernel tells everything, and the caller picks

    def __enter__(self) -> "Netlink":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def dump(self, kind: Kind, body: tuple[int, ...], attributes: Attributes | None = None) -> list[Message]:
        """All of a kind. `body` and `attributes` say which, but an old kernel may tell more."""
        for _ in range(_MOST_TRIES):
            sent = self._send(kind.get, _REQUEST | _DUMP, kind.body.pack(*body), attributes or {})
            found: list[Message] = []
            is_whole = True
            for number, flags, payload in self._answers(sent):
                is_whole &= not flags & _INTERRUPTED
                if number == kind.new:
                    found.append(_parsed(kind, payload))
            if is_whole:
                return found
        raise OSError(errno.EAGAIN, f"the kernel's list of {kind.name}s keeps changing")

    def add(self, kind: Kind, body: tuple[int, ...], attributes: Attributes) -> None:
        """EEXIST where it is there already."""
        flags = _REQUEST | _ACK | _CREATE | _EXCL
        self._end(self._send(kind.new, flags, kind.body.pack(*body), attributes))

    def delete(self, kind: Kind, body: tuple[int, ...], attributes: Attributes) -> None:
        """One of those that fit."""
        self._end(self._send(kind.delete, _REQUEST | _ACK, kind.body.pack(*body), attributes))

    def _end(self, sequence: int) -> None:
        for _ in self._answers(sequence):
            pass

    def _send(self, number: int, flags: int, body: bytes, attributes: Attributes) -> int:
        self._sequence += 1
        payload = body + b"".join(_packed(kind, value) for kind, value in attributes.items())
        header = _HEADER.pack(_HEADER.size + len(payload), number, flags, self._sequence, 0)
        self._socket.send(header + payload)
        return self._sequence

    def _answers(self, sequence: int) -> Iterator[tuple[int, int, bytes]]:
        """Type, flags and payload of each message, until the last. What is left of an earlier request is dropped."""
        while True:
            data = self._socket.recv(1 << 16)
            while data:
                length, number, flags, of_request, _ = _HEADER.unpack_from(data)
                if length < _HEADER.size:
                    raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))
                payload, data = data[_HEADER.size : length], data[_aligned(length) :]
                if of_request != sequence:
                    continue
                if number in (_ERROR, _DONE):
                    # DONE has an error too, since a dump may fail when it has begun.
                    code = -struct.unpack_from("=i", payload)[0] if len(payload) >= 4 else 0
                    if code:
                        raise OSError(code, os.strerror(code))
                    return
                yield number, flags, payload


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def _packed(kind: int, value: bytes) -> bytes:
    return (_ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value).ljust(_aligned(4 + len(value)), b"\0")


def _parsed(kind: Kind, payload: bytes) -> Message:
    attributes: Attributes = {}
    rest = payload[_aligned(kind.body.size) :]
    while len(rest) >= _ATTRIBUTE.size:
        length, number = _ATTRIBUTE.unpack_from(rest)
        if length < _ATTRIBUTE.size:
            break
        attributes[number & _NESTED_MASK] = rest[_ATTRIBUTE.size : length]
        rest = rest[_aligned(length) :]
    return Message(kind.body.unpack_from(payload), attributes)
