"""The SDS server as Envoy meets it: names, replies, pushes, NACKs and ends, over a real gRPC connection."""

import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from pilot_agent.identity.slots import validation
from pilot_agent.sds.resources import SECRET_TYPE
from tests.support.eventually import eventually
from tests.support.sds_client import SERVICE, SdsClient, SdsStream, secrets_in
from tests.unit.sds.served import AUTHORITY, Served, pair, roots


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    running = Served(tmp_path)
    yield running
    running.stop()


@pytest.fixture
def client(served: Served) -> Iterator[SdsClient]:
    with SdsClient(served.path) as made:
        yield made


Stream = Callable[[], SdsStream]


def names_of(response: Any) -> list[str]:
    return list(secrets_in(response))


def ask(stream: SdsStream, *names: str) -> Any:
    stream.ask(*names)
    return stream.next()


# State of the world


def test_a_key_pair_and_roots_look_as_envoy_expects_them(served: Served, client: SdsClient) -> None:
    key, root = pair(), roots()
    served.offer("default", key)
    served.offer("ROOTCA", root)
    response = ask(client.stream(), "default", "ROOTCA")
    assert response.type_url == SECRET_TYPE
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ/1", response.version_info)
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", response.nonce)
    found = secrets_in(response)
    assert list(found) == ["default", "ROOTCA"]
    assert found["default"].tls_certificate.certificate_chain.inline_bytes == key.chain
    assert found["default"].tls_certificate.private_key.inline_bytes == key.key
    assert found["ROOTCA"].validation_context.trusted_ca.inline_bytes == root.roots
    assert not found["ROOTCA"].validation_context.HasField("crl")


def test_a_revocation_list_goes_with_the_roots(served: Served, client: SdsClient) -> None:
    crl = AUTHORITY.crl(1).encode()
    served.offer("ROOTCA", validation(AUTHORITY.pem.encode(), crl))
    assert client.fetch("ROOTCA").validation_context.crl.inline_bytes == crl


def test_the_first_message_needs_a_node(client: SdsClient) -> None:
    stream = client.stream()
    stream.ask("default", node="")
    error = stream.end()
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "missing node information"


def test_later_messages_need_none(served: Served, client: SdsClient) -> None:
    served.offer("default", pair())
    stream = client.stream()
    response = ask(stream, "default")
    stream.ask("default", nonce=response.nonce, node="")
    served.offer("default", pair())
    assert names_of(stream.next()) == ["default"]


def test_an_ack_gets_no_answer(served: Served, client: SdsClient) -> None:
    served.offer("default", pair())
    stream = client.stream()
    response = ask(stream, "default")
    stream.ask("default", nonce=response.nonce, version_info=response.version_info)
    assert stream.is_silent()


def test_added_names_are_answered_alone(served: Served, client: SdsClient) -> None:
    served.offer("default", pair())
    served.offer("ROOTCA", roots())
    stream = client.stream()
    response = ask(stream, "default")
    stream.ask("ROOTCA", "default", nonce=response.nonce)
    assert names_of(stream.next()) == ["ROOTCA"]
    assert stream.is_silent()


def test_names_in_another_order_are_the_same(served: Served, client: SdsClient) -> None:
    served.offer("default", pair())
    served.offer("ROOTCA", roots())
    stream = client.stream()
    response = ask(stream, "default", "ROOTCA")
    stream.ask("ROOTCA", "default", nonce=response.nonce)
    assert stream.is_silent()


def test_an_old_nonce_is_ignored_and_counted(served: Served, client: SdsClient) -> None:
    served.offer("default", pair())
    stream = client.stream()
    first = ask(stream, "default")
    served.offer("default", pair())
    stream.next()
    stream.ask("default", nonce=first.nonce)
    assert stream.is_silent()
    assert served.account.expired_nonces[SECRET_TYPE] == 1


def test_a_client_that_comes_back_is_answered_whatever_nonce_it_brings(served: Served, client: SdsClient) -> None:
    served.offer("default", pair())
    for nonce in ("", "of another stream"):
        stream = client.stream()
        stream.ask("default", nonce=nonce, version_info="2020-01-01T00:00:00Z/7")
        assert names_of(stream.next()) == ["default"]


def test_an_empty_nonce_asks_for_everything_again(served: Served, client: SdsClient) -> None:
    served.offer("default", pair())
    stream = client.stream()
    for _ in range(2):
        assert names_of(ask(stream, "default")) == ["default"]


def test_no_names_end_the_watch_and_not_the_stream(served: Served, client: SdsClient) -> None:
    served.offer("default", pair())
    stream = client.stream()
    response = ask(stream, "default")
    stream.ask(nonce=response.nonce)
    eventually(lambda: served.listeners("default") == 0)
    served.offer("default", pair())
    assert stream.is_silent()
    assert served.names.taken_back == ["default"]
    assert names_of(ask(stream, "default")) == ["default"]


@pytest.mark.parametrize("name", ["", "kubernetes://secret", "file-cert:/only-one", "file-root:a~b", "default "])
def test_an_unknown_name_never_gets_the_workloads_key(served: Served, client: SdsClient, name: str) -> None:
    served.offer("default", pair())
    stream = client.stream()
    stream.ask("default", name)
    error = stream.end()
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == f"failed to generate secret for {name}: unknown name"
    assert names_of(ask(client.stream(), "default")) == ["default"], "other streams go on"


# Pushes


def test_a_change_is_pushed_to_whom_it_concerns(served: Served, client: SdsClient) -> None:
    served.offer("default", pair())
    served.offer("ROOTCA", roots())
    key_stream, root_stream, both = (client.stream() for _ in range(3))
    ask(key_stream, "default")
    ask(root_stream, "ROOTCA")
    ask(both, "default", "ROOTCA")
    newer = pair()
    served.offer("default", newer)
    for stream in (key_stream, both):
        found = secrets_in(stream.next())
        assert list(found) == ["default"]
        assert found["default"].tls_certificate.certificate_chain.inline_bytes == newer.chain
    assert root_stream.is_silent()


def test_the_same_content_is_no_change(served: Served, client: SdsClient) -> None:
    secret = pair()
    served.offer("default", secret)
    stream = client.stream()
    ask(stream, "default")
    served.offer("default", secret)
    assert stream.is_silent()


def test_a_push_does_not_wait_for_an_ack_and_nonces_differ(served: Served, client: SdsClient) -> None:
    served.offer("default", pair())
    stream = client.stream()
    seen = [ask(stream, "default")]
    for _ in range(20):
        newer = pair()
        served.offer("default", newer)
        seen.append(stream.next())
        assert secrets_in(seen[-1])["default"].tls_certificate.certificate_chain.inline_bytes == newer.chain
    assert len({each.nonce for each in seen}) == len({each.version_info for each in seen}) == len(seen)


def test_many_changes_at_once_end_in_the_last_one(served: Served, client: SdsClient) -> None:
    served.offer("default", pair())
    stream = client.stream()
    ask(stream, "default")
    last = pair()

    def change() -> None:
        for _ in range(50):
            served.names.slots["default"].offer(pair())
        served.names.slots["default"].offer(last)

    served.do(change)
    assert secrets_in(stream.next())["default"].tls_certificate.certificate_chain.inline_bytes == last.chain
    assert stream.is_silent()


def test_what_is_not_there_yet_is_waited_for_and_answered_together(served: Served, client: SdsClient) -> None:
    served.offer("ROOTCA", roots())
    stream = client.stream()
    stream.ask("default", "ROOTCA")
    assert stream.is_silent()
    served.offer("default", pair())
    assert names_of(stream.next()) == ["default", "ROOTCA"]


# Failures


def test_a_failure_ends_the_stream_with_its_cause_and_a_later_stream_succeeds(
    served: Served, client: SdsClient
) -> None:
    stream = client.stream()
    stream.ask("default")
    eventually(lambda: served.listeners("default") == 1)
    served.do(lambda: served.names.slots["default"].fail("the CA is down"))
    error = stream.end()
    assert error.code() is grpc.StatusCode.UNKNOWN
    assert error.details() == "failed to generate secret for default: the CA is down"
    later = client.stream()
    later.ask("default")
    assert later.is_silent(), "an old failure is not held against it"
    served.offer("default", pair())
    assert names_of(later.next()) == ["default"]


def test_a_failed_renewal_is_no_affair_of_the_stream(served: Served, client: SdsClient) -> None:
    served.offer("default", pair())
    stream = client.stream()
    ask(stream, "default")
    served.do(lambda: served.names.slots["default"].fail("the CA is down"))
    assert stream.is_silent()
    assert names_of(ask(client.stream(), "default")) == ["default"], "a new stream gets the one that is still good"


def test_a_secret_that_expires_ends_the_stream(served: Served, client: SdsClient) -> None:
    served.offer("default", pair())
    stream = client.stream()
    ask(stream, "default")
    served.do(lambda: served.names.slots["default"].withdraw("it has expired"))
    assert stream.end().details() == "failed to generate secret for default: it has expired"


def test_a_nack_is_counted_and_logged_and_gets_no_answer(served: Served, client: SdsClient) -> None:
    served.offer("default", pair())
    stream = client.stream()
    response = ask(stream, "default")
    stream.reject(response.nonce, "default", words="bad\nkey")
    assert stream.is_silent()
    assert served.account.rejects == 1
    assert any("Envoy refuses a secret: bad key" in line for line in served.log.lines)
    served.offer("default", pair())
    assert names_of(stream.next()) == ["default"], "and the stream goes on"


def test_a_nack_as_the_first_message_is_harmless(served: Served, client: SdsClient) -> None:
    served.offer("default", pair())
    stream = client.stream()
    stream.reject("of the server before", "default")
    assert stream.is_silent()
    assert names_of(ask(stream, "default")) == ["default"]
    assert names_of(ask(client.stream(), "default")) == ["default"]


def test_a_message_that_is_none_ends_its_stream_only(served: Served, client: SdsClient) -> None:
    served.offer("default", pair())
    with grpc.insecure_channel(f"unix:{served.path}") as channel:
        method: Any = channel.stream_stream(f"{SERVICE}StreamSecrets")
        with pytest.raises(grpc.RpcError) as raised:
            next(method(iter([b"\xff\xff\xff"])))
    assert raised.value.code() is grpc.StatusCode.INTERNAL
    assert names_of(ask(client.stream(), "default")) == ["default"]


def test_fetch_secrets_is_not_there(served: Served) -> None:
    with grpc.insecure_channel(f"unix:{served.path}") as channel:
        method: Any = channel.unary_unary(f"{SERVICE}FetchSecrets")
        with pytest.raises(grpc.RpcError) as raised:
            method(b"", timeout=10)
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


# Delta


def test_delta_sends_what_is_subscribed_to(served: Served, client: SdsClient) -> None:
    key = pair()
    served.offer("default", key)
    served.offer("ROOTCA", roots())
    stream = client.stream(is_delta=True)
    stream.ask(resource_names_subscribe=["default"])
    response = stream.next()
    assert [(each.name, each.version) for each in response.resources] == [("default", key.version)]
    stream.ask(nonce=response.nonce, resource_names_subscribe=["ROOTCA"])
    assert names_of(stream.next()) == ["ROOTCA"]
    served.offer("default", pair())
    assert names_of(stream.next()) == ["default"]


def test_delta_stops_at_an_unsubscription(served: Served, client: SdsClient) -> None:
    served.offer("default", pair())
    stream = client.stream(is_delta=True)
    stream.ask(resource_names_subscribe=["default"])
    response = stream.next()
    stream.ask(nonce=response.nonce, resource_names_unsubscribe=["default"])
    eventually(lambda: served.listeners("default") == 0)
    served.offer("default", pair())
    assert stream.is_silent()


def test_delta_leaves_out_what_a_client_that_comes_back_has(served: Served, client: SdsClient) -> None:
    key = pair()
    served.offer("default", key)
    served.offer("ROOTCA", roots())
    stream = client.stream(is_delta=True)
    stream.ask(
        resource_names_subscribe=["default", "ROOTCA"],
        initial_resource_versions={"default": key.version, "ROOTCA": "an older one"},
    )
    assert names_of(stream.next()) == ["ROOTCA"]
    assert stream.is_silent()
    served.offer("default", pair())
    assert names_of(stream.next()) == ["default"]


def test_delta_refuses_unknown_names_and_takes_nacks(served: Served, client: SdsClient) -> None:
    stream = client.stream(is_delta=True)
    stream.ask(resource_names_subscribe=["nobody"])
    assert stream.end().code() is grpc.StatusCode.NOT_FOUND
    other = client.stream(is_delta=True)
    other.reject("first of all")
    assert other.is_silent()
    assert served.account.rejects == 1


# Many


def test_a_thousand_streams_at_once(served: Served) -> None:
    served.offer("default", pair())
    clients = [SdsClient(served.path) for _ in range(4)]
    try:
        with _Quiet(clients) as streams:
            for stream in streams:
                stream.send("default")
            assert all(names_of(stream.receive()) == ["default"] for stream in streams)
            assert served.account.streams == 1000
            newer = pair()
            served.offer("default", newer)
            chains = {_chain(stream.receive()) for stream in streams}
            assert chains == {newer.chain}
    finally:
        for each in clients:
            each.close()
    eventually(lambda: served.account.streams == 0)
    assert served.listeners("default") == 0


def _chain(response: Any) -> bytes:
    return bytes(secrets_in(response)["default"].tls_certificate.certificate_chain.inline_bytes)


class _Quiet:
    """250 streams a client, without a thread for each."""

    def __init__(self, clients: list[SdsClient]) -> None:
        self._streams = [each.bare_stream() for each in clients for _ in range(250)]

    def __enter__(self) -> list[Any]:
        return self._streams

    def __exit__(self, *_: object) -> None:
        for stream in self._streams:
            stream.cancel()


# The socket


def test_whoever_came_before_the_server_is_served(tmp_path: Path) -> None:
    early = socket.socket(socket.AF_UNIX)
    served = Served(tmp_path)
    try:
        early.settimeout(10)
        early.connect(str(served.path))
        early.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
        assert early.recv(9)[3] == 4, "a SETTINGS frame"
    finally:
        early.close()
        served.stop()
    assert list(tmp_path.iterdir()) == [], "no socket is left, the private one neither"


def test_only_its_owner_may_go_past_the_relay(served: Served, tmp_path: Path) -> None:
    def private() -> Path | None:
        return next((path for path in tmp_path.iterdir() if path != served.path), None)

    assert eventually(private).stat().st_mode & 0o777 == 0o600  # type: ignore[union-attr]
    assert served.path.stat().st_mode & 0o777 == 0o666


def test_privateKeyProvider_goes_with_the_key(tmp_path: Path) -> None:
    served = Served(tmp_path, ("cryptomb", 10_000_000, True))
    try:
        key = pair()
        served.offer("default", key)
        with SdsClient(served.path) as client:
            certificate = client.fetch("default").tls_certificate
    finally:
        served.stop()
    assert not certificate.HasField("private_key")
    provider = certificate.private_key_provider
    assert (provider.provider_name, provider.fallback) == ("cryptomb", True)
    assert provider.typed_config.type_url.endswith("cryptomb.v3alpha.CryptoMbPrivateKeyMethodConfig")
    # private_key (1) holds inline_bytes (2) of the key; poll_delay (2) holds 10 ms as nanos (2).
    assert key.key in provider.typed_config.value
    assert provider.typed_config.value.endswith(b"\x12\x05\x10\x80\xad\xe2\x04")
