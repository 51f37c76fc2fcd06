"""Whatever a message holds, it passes bit for bit, and is read as generated protobuf code reads it.

The messages are put together on the wire: known and unknown fields of every kind, in any order, some more than once.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilot_agent.xds.intercept import ENVOY, NAME_TABLE, WORKLOAD, Fate, Interception
from pilot_agent.xds.wire import (
    DELTA_REQUEST,
    DELTA_RESPONSE,
    SOTW_REQUEST,
    SOTW_RESPONSE,
    Fields,
    envelope,
)
from tests.support.ads_client import AdsStream
from tests.support.eventually import eventually
from tests.support.fake_istiod import FakeIstiod
from tests.support.recorded_log import RecordedLog
from tests.unit.xds.proxied import Proxied


class Kind(NamedTuple):
    """One of the four messages of ADS: which of its fields are texts, and generated code's names for what counts."""

    fields: Fields
    message: Any
    texts: tuple[int, ...]
    version: str
    resources: str = "resources"
    is_delta: bool = False


KINDS = {
    "SotW request": Kind(SOTW_REQUEST, discovery_pb2.DiscoveryRequest, (1, 3, 4, 5), "version_info", "resource_names"),
    "delta request": Kind(
        DELTA_REQUEST, discovery_pb2.DeltaDiscoveryRequest, (2, 3, 4, 6), "", "resource_names_subscribe", True
    ),
    "SotW response": Kind(SOTW_RESPONSE, discovery_pb2.DiscoveryResponse, (1, 4, 5), "version_info"),
    "delta response": Kind(
        DELTA_RESPONSE, discovery_pb2.DeltaDiscoveryResponse, (1, 4, 5, 6), "system_version_info", is_delta=True
    ),
}
RESPONSES = {name: kind for name, kind in KINDS.items() if "response" in name}
A_GROUP, ITS_END = 3, 4


def varint(number: int, padding: int = 0) -> bytes:
    """`padding` makes it longer than it need be, which is allowed."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    if not padding:
        return bytes([*encoded, number])
    return bytes([*encoded, number | 0x80, *[0x80] * (padding - 1), 0])


def tag(number: int, wire_type: int) -> bytes:
    return varint(number << 3 | wire_type)


def chunk(number: int, value: bytes, padding: int = 0) -> bytes:
    return tag(number, 2) + varint(len(value), padding) + value


NUMBERS = st.integers(100, 2**29 - 1)
TEXTS = st.text(max_size=20).map(str.encode)
TYPES = st.sampled_from([f"{ENVOY}of.a.later.Version", f"{ENVOY}x", WORKLOAD, "istio.io/debug", NAME_TABLE]).map(
    str.encode
)


def _groups(fields: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.builds(
        lambda number, inside: tag(number, A_GROUP) + b"".join(inside) + tag(number, ITS_END),
        NUMBERS,
        st.lists(fields, max_size=3),
    )


UNKNOWN = st.recursive(
    st.one_of(
        st.builds(lambda number, value: tag(number, 0) + varint(value), NUMBERS, st.integers(0, 2**64 - 1)),
        st.builds(lambda number, value: tag(number, 1) + value, NUMBERS, st.binary(min_size=8, max_size=8)),
        st.builds(lambda number, value: tag(number, 5) + value, NUMBERS, st.binary(min_size=4, max_size=4)),
        st.builds(chunk, NUMBERS, st.binary(max_size=40), st.integers(0, 3)),
        # A number inside of a group is the group's, even one that means something outside.
        st.builds(
            lambda number, inside: tag(number, A_GROUP) + chunk(4, inside) + tag(number, ITS_END), NUMBERS, TEXTS
        ),
    ),
    _groups,
    max_leaves=4,
)
SMALL = st.lists(st.one_of(UNKNOWN, st.builds(chunk, st.just(2), TEXTS)), max_size=3).map(b"".join)
"""A google.rpc.Status, with what else may stand in one."""
ANY = st.builds(lambda url, value: chunk(1, url) + chunk(2, value), TYPES, st.binary(max_size=200))
ANY_IN_PARTS = st.builds(
    lambda url, value: chunk(2, chunk(2, value)) + chunk(2, chunk(1, url)), TYPES, st.binary(min_size=1, max_size=200)
)
RESOURCE = st.builds(
    lambda name, any_, more: chunk(3, name) + any_ + more,
    TEXTS,
    st.builds(chunk, st.just(2), ANY) | ANY_IN_PARTS,
    UNKNOWN | st.just(b""),
)


def bodies(kind: Kind) -> st.SearchStrategy[bytes]:
    """Messages of the kind."""
    resource = RESOURCE if kind.is_delta else ANY
    known = [st.builds(chunk, st.just(kind.fields.type_url), TYPES, st.integers(0, 2))]
    known += [st.builds(chunk, st.just(number), TEXTS) for number in kind.texts if number != kind.fields.type_url]
    if kind.fields.error:
        known.append(st.builds(chunk, st.just(kind.fields.error), SMALL))
    else:
        known.append(st.builds(chunk, st.just(kind.fields.resources), resource))
    return st.lists(st.one_of(*known, UNKNOWN), max_size=8).map(b"".join)


def name_tables(kind: Kind) -> st.SearchStrategy[bytes]:
    """Responses of a type that the agent reads, with a resource at least."""
    resource = RESOURCE if kind.is_delta else ANY
    return st.builds(lambda body, one: body + chunk(2, one) + chunk(4, NAME_TABLE.encode()), bodies(kind), resource)


@pytest.mark.parametrize("name", KINDS)
@given(data=st.data())
def test_any_message_is_read_as_generated_code_reads_it(name: str, data: st.DataObject) -> None:
    kind = KINDS[name]
    body = data.draw(bodies(kind))
    assert envelope(body, kind.fields) == expected(kind, body)


@pytest.mark.parametrize("name", KINDS)
@given(body=st.binary(max_size=60))
def test_what_generated_code_can_read_is_never_refused(name: str, body: bytes) -> None:
    kind = KINDS[name]
    try:
        wanted = expected(kind, body)
    except DecodeError:
        return  # we look at less, and may take it
    assert envelope(body, kind.fields) == wanted


def expected(kind: Kind, body: bytes) -> tuple[str, str, str, str | None, int]:
    """The envelope, by generated code."""
    found = kind.message.FromString(body)
    is_request = kind.fields.error != 0
    return (
        found.type_url,
        found.response_nonce if is_request else found.nonce,
        getattr(found, kind.version) if kind.version else "",
        found.error_detail.message if is_request and found.HasField("error_detail") else None,
        len(getattr(found, kind.resources)),
    )


@pytest.mark.parametrize("name", RESPONSES)
@given(data=st.data())
def test_any_response_meets_the_fate_of_its_type_and_its_first_resource_is_read(name: str, data: st.DataObject) -> None:
    kind = RESPONSES[name]
    body = data.draw(bodies(kind) | name_tables(kind))
    message = kind.message.FromString(body)
    taken: list[bytes] = []
    interception = Interception({NAME_TABLE: taken.append}, lambda: None, RecordedLog().scope, is_delta=kind.is_delta)
    fate, answer = interception.take(body, envelope(body, kind.fields))
    if message.type_url != NAME_TABLE:
        is_for_envoy = message.type_url.startswith(ENVOY) or message.type_url == WORKLOAD
        assert (fate, answer, taken) == (Fate.FORWARDED if is_for_envoy else Fate.DROPPED, None, [])
        return
    first = [each.resource if kind.is_delta else each for each in message.resources][:1]
    assert (fate, taken, answer is None) == (Fate.CONSUMED, [each.value for each in first], not first)
    if answer is not None:
        request = KINDS[name.replace("response", "request")].message.FromString(answer)
        assert (request.type_url, request.response_nonce) == (NAME_TABLE, message.nonce)


class Stand:
    """A stream through the proxy, and its other end: an istiod that answers nothing."""

    def __init__(self, proxied: Proxied, istiod: FakeIstiod, *, is_delta: bool) -> None:
        istiod.ads.hang = True
        self._istiod, self.client = istiod, proxied.stream(is_delta=is_delta)
        self.kind = "delta" if is_delta else "SotW"
        self.sent = [self.client.ask("t")]
        eventually(istiod.ads.open_streams)

    def sends(self, stream: AdsStream, body: bytes) -> None:
        self.sent.append(stream.send(body))
        (recorded,) = self._istiod.ads.open_streams()
        eventually(lambda: len(recorded.raw) == len(self.sent))
        assert recorded.raw[-1] == body

    def gets(self, stream: AdsStream, body: bytes) -> None:
        self._istiod.ads.send_raw(body)
        assert stream.next() == body


@pytest.fixture
def stand(tmp_path: Path, istiod: FakeIstiod, is_delta: bool) -> Iterator[Stand]:
    proxied = Proxied(tmp_path, istiod.address)
    yield Stand(proxied, istiod, is_delta=is_delta)
    proxied.stop()


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_requests_and_responses_survive_real_sockets_bit_for_bit(stand: Stand, data: st.DataObject) -> None:
    stand.sends(stand.client, data.draw(bodies(KINDS[f"{stand.kind} request"])))
    body = data.draw(bodies(KINDS[f"{stand.kind} response"]))
    stand.gets(stand.client, body + chunk(4, f"{ENVOY}of.a.later.Version".encode()))
