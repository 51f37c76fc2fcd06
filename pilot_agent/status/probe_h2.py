"""One HTTP/2 exchange on a connection of its own, and the gRPC health check, which is one such exchange.

Not grpcio: it can't bind the source address a probe needs (docs/decisions/0008-probe-libraries.md). Loaded late.
Called by `probe_http`, `probes` and `workload_health`.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError

from pilot_agent.status.probe_dial import Dialer, Place, ProbeFailed, Wire

SERVING = 1
STATUS_NAMES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}

_CHUNK_BYTES = 64 * 1024
_MESSAGE_BYTES = 4096
_CODES = {b"5": "NOT_FOUND", b"12": "UNIMPLEMENTED", b"14": "UNAVAILABLE", b"16": "UNAUTHENTICATED"}


class Http2Failed(Exception):
    """The peer does not speak HTTP/2, or broke the exchange off."""


class Reply(NamedTuple):
    """`headers` holds the trailers too; of a name that is repeated, the last value."""

    headers: Mapping[bytes, bytes]
    body: bytes


async def exchange(wire: Wire, head: Sequence[tuple[bytes, bytes]], body: bytes, body_bytes: int) -> Reply:
    """Send one request, read its answer, no more than `body_bytes` of the body. Raises Http2Failed.

    `body` is short: nothing here waits for a window of the peer.
    """
    connection = H2Connection(H2Configuration(client_side=True, header_encoding=None))
    reading = _Reading(connection, body_bytes)
    try:
        connection.initiate_connection()
        connection.send_headers(1, head, end_stream=not body)
        if body:
            connection.send_data(1, body, end_stream=True)
        while not reading.is_done:
            wire.writer.write(connection.data_to_send())
            data = await wire.reader.read(_CHUNK_BYTES)
            if not data:
                raise Http2Failed("the connection was closed without an answer")
            for event in connection.receive_data(data):
                reading.take(event)
    except ProtocolError as error:
        raise Http2Failed(f"not HTTP/2: {type(error).__name__}") from None
    return Reply(reading.headers, bytes(reading.body[:body_bytes]))


class _Reading:
    def __init__(self, connection: H2Connection, body_bytes: int) -> None:
        self._connection, self._body_bytes = connection, body_bytes
        self.headers: dict[bytes, bytes] = {}
        self.body = bytearray()
        self.is_done = False

    def take(self, event: Event) -> None:
        if self.is_done:
            return
        if isinstance(event, ResponseReceived | TrailersReceived):
            self.headers.update((bytes(name), bytes(value)) for name, value in event.headers or ())
        elif isinstance(event, DataReceived):
            self.body += event.data or b""
            self._connection.acknowledge_received_data(event.flow_controlled_length or 0, 1)
            self.is_done = len(self.body) >= self._body_bytes
        elif isinstance(event, StreamEnded):
            self.is_done = True
        elif isinstance(event, StreamReset):
            raise Http2Failed(f"the request was reset (code {int(event.error_code or 0)})")
        elif isinstance(event, ConnectionTerminated) and not event.last_stream_id:
            raise Http2Failed(f"the connection was refused (code {int(event.error_code or 0)})")


async def check_health(dialer: Dialer, place: Place, service: str, user_agent: bytes) -> None:
    """grpc.health.v1.Health/Check in plaintext; returns when the service is SERVING.

    Raises ProbeFailed for every other answer, OSError when it can't connect. The deadline is the caller's.
    """
    head = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/grpc.health.v1.Health/Check"),
        (b":authority", place.authority),
        (b"content-type", b"application/grpc"),
        (b"user-agent", user_agent),
        (b"te", b"trailers"),
    ]
    wire, is_done = await dialer.dial(place), False
    try:
        reply = await exchange(wire, head, _framed(_request(service)), _MESSAGE_BYTES)
        is_done = True
    except Http2Failed as error:
        raise ProbeFailed(str(error)) from None
    finally:
        if is_done:
            wire.close()
        else:
            wire.reset()
    _judge(reply)


def _judge(reply: Reply) -> None:
    code = reply.headers.get(b"grpc-status")
    if code is None:
        status = reply.headers.get(b":status", b"none").decode("latin-1")[:8]
        raise ProbeFailed(f"not a gRPC answer (HTTP status {status})")
    if code != b"0":
        raise ProbeFailed(f"gRPC status {_CODES.get(code, code.decode('latin-1')[:8])}")
    try:
        status_number = _status(reply.body)
    except (ValueError, IndexError):
        raise ProbeFailed("not an answer of the gRPC health protocol") from None
    if status_number != SERVING:
        raise ProbeFailed(STATUS_NAMES.get(status_number, f"health status {status_number}"))


def _request(service: str) -> bytes:
    """HealthCheckRequest: field 1, a string, left out when empty."""
    name = service.encode("utf-8", "replace")
    return b"\x0a" + _varint(len(name)) + name if name else b""


def _framed(message: bytes) -> bytes:
    """A gRPC message: not compressed, its length, itself."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _status(body: bytes) -> int:
    """Field 1 of HealthCheckResponse, 0 when it is left out. Raises ValueError or IndexError for anything else."""
    length = int.from_bytes(body[1:5], "big")
    message = body[5:]
    if len(body) < 5 or body[0] or length != len(message):
        raise ValueError("not one uncompressed gRPC message")
    status = position = 0
    while position < length:
        key, position = _read_varint(message, position)
        value, position = _read_field(message, position, key & 7)
        if key == 0x08:
            status = value
    return status


def _read_field(message: bytes, position: int, wire_type: int) -> tuple[int, int]:
    """The value of a varint, 0 for what is skipped, and where the next field begins."""
    if wire_type == 0:
        return _read_varint(message, position)
    if wire_type == 2:
        length, position = _read_varint(message, position)
    elif wire_type in (1, 5):
        length = 8 if wire_type == 1 else 4
    else:
        raise ValueError(f"wire type {wire_type}")
    if position + length > len(message):
        raise ValueError("cut off")
    return 0, position + length


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        byte = message[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
    raise ValueError("a varint of more than ten bytes")
