import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.errors import SettingsError
from pilot_agent.status.probe_config import (
    HOOK_SECONDS,
    VARIABLE,
    GrpcAction,
    HttpAction,
    Prober,
    TcpAction,
    parse_probers,
)

LIVEZ = "/app-health/app/livez"
HTTP = {"httpGet": {"port": 8080}, "timeoutSeconds": 1}


def parse_one(prober: object, key: str = LIVEZ) -> Prober:
    probers, _ = parse_probers(json.dumps({key: prober}), 15020)
    return probers[key]


def refusal(document: object) -> str:
    with pytest.raises(SettingsError) as caught:
        parse_probers(document if isinstance(document, str) else json.dumps(document), 15020)
    said = str(caught.value)
    assert said.startswith(VARIABLE)
    assert "\n" not in said
    return said


@pytest.mark.parametrize("text", ["", "  ", "{}", "null"])
def test_nothing_configured_is_no_prober(text: str) -> None:
    assert parse_probers(text, 15020) == ({}, ())


@pytest.mark.parametrize(
    ("prober", "expected"),
    [
        ({"httpGet": {"port": 8080, "path": "/health?deep=1"}}, HttpAction(8080, "/health?deep=1", False)),
        ({"httpGet": {"port": 8080}}, HttpAction(8080, "/", False)),
        ({"httpGet": {"port": 8080, "path": "health"}}, HttpAction(8080, "/health", False)),
        ({"httpGet": {"port": 1, "scheme": "HTTPS"}}, HttpAction(1, "/", True)),
        ({"httpGet": {"port": 1, "scheme": "https"}}, HttpAction(1, "/", False)),
        ({"httpGet": {"port": 1, "scheme": None, "path": None, "host": "x", "new": 1}}, HttpAction(1, "/", False)),
        ({"tcpSocket": {"port": 65535}}, TcpAction(65535)),
        ({"grpc": {"port": 9000, "service": "shop"}}, GrpcAction(9000, "shop")),
        ({"grpc": {"port": 9000, "service": None}}, GrpcAction(9000, "")),
        ({"gRPC": {"PORT": 9000}}, GrpcAction(9000, "")),
        ({"GRPC": {"Port": 9000}, "httpGet": None}, GrpcAction(9000, "")),
    ],
)
def test_each_kind_of_action(prober: dict[str, object], expected: object) -> None:
    assert parse_one({**prober, "timeoutSeconds": 3}) == Prober(expected, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "key",
    [
        "/app-health/app/livez",
        "/app-health/app-2/readyz",
        "/app-health/a.b/startupz",
        "/app-lifecycle/app/prestopz",
        "/app-lifecycle/app/poststartz",
        "/app-lifecycle/app/livez",
        "/app-health/app/prestopz",
    ],
)
def test_keys_of_istios_injector(key: str) -> None:
    assert parse_one(HTTP, key).action == HttpAction(8080, "/", False)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/app-health/app/LIVEZ",
        "/App-health/app/livez",
        "app-health/app/livez",
        "/app-health/app/livez/",
        "/app-health/app/livez\n",
        "/app-health//livez",
        "/app-health/a/b/livez",
        "/app-health/app/health",
        "/healthz/ready",
    ],
)
def test_any_other_key_is_refused_with_the_form_to_write(key: str) -> None:
    said = refusal({key: HTTP})
    assert repr(key) in said
    assert "/app-health/<container>/livez" in said


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("{", "is not JSON: Expecting property name"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is a list; write an object of probers by path"),
        ('"x"', "is a text"),
        ("1e400", "is a number"),
        ({LIVEZ: None}, f"{LIVEZ} is null; write an object"),
        ({LIVEZ: 5}, f"{LIVEZ} is a number; write an object"),
        ({LIVEZ: {}}, f"{LIVEZ} has none of them; write exactly one of httpGet, tcpSocket and grpc"),
        ({LIVEZ: {"exec": {"command": ["true"]}}}, "has none of them"),
        ({LIVEZ: {"httpGet": None}}, "has none of them"),
        ({LIVEZ: {"httpGet": {"port": 1}, "tcpSocket": {"port": 1}}}, "has httpGet and tcpSocket"),
        ({LIVEZ: {"tcpSocket": 8080}}, f"{LIVEZ}.tcpSocket is a number; write an object"),
        ({LIVEZ: {"tcpSocket": {}}}, f"{LIVEZ}.tcpSocket.port is missing; write a number"),
        ({LIVEZ: {"tcpSocket": {"port": 8.5}}}, ".port is 8.5; write a number"),
        ({LIVEZ: {"tcpSocket": {"port": True}}}, ".port is true; write a number"),
        ({LIVEZ: {"tcpSocket": {"port": "http"}}}, '.port is "http"; write a number without quotes'),
        ({LIVEZ: {"grpc": {"port": "9000"}}}, f'{LIVEZ}.grpc.port is "9000"; write a number without quotes'),
        ({LIVEZ: {"tcpSocket": {"port": 0}}}, ".port is 0; ports go from 1 to 65535"),
        ({LIVEZ: {"tcpSocket": {"port": 70000}}}, ".port is 70000; ports go from 1 to 65535"),
        ({LIVEZ: {"tcpSocket": {"port": -1}}}, ".port is -1; ports go from 1 to 65535"),
        ({LIVEZ: {"tcpSocket": {"port": 10**400}}}, "; ports go from 1 to 65535"),
        ({LIVEZ: {"httpGet": {"port": 15020}}}, ".port is 15020, the agent's own"),
        ({LIVEZ: {"httpGet": {"port": 1, "path": 5}}}, f"{LIVEZ}.httpGet.path is a number; write a text in quotes"),
        ({LIVEZ: {"httpGet": {"port": 1, "scheme": []}}}, ".scheme is a list; write a text"),
        ({LIVEZ: {"grpc": {"port": 1, "service": 5}}}, ".grpc.service is a number; write a text"),
        ({LIVEZ: {**HTTP, "timeoutSeconds": "5s"}}, f'{LIVEZ}.timeoutSeconds is "5s"; write a whole number'),
        ({LIVEZ: {**HTTP, "timeoutSeconds": 1.5}}, ".timeoutSeconds is 1.5; write a whole number"),
        ({LIVEZ: {**HTTP, "timeoutSeconds": -1}}, ".timeoutSeconds is -1; write 1 or more seconds"),
        ({LIVEZ: {**HTTP, "timeoutSeconds": 10**12}}, ".timeoutSeconds is 1000000000000; write 1 or more"),
    ],
)
def test_what_is_wrong_is_said_with_its_path_and_value(document: object, said: str) -> None:
    assert said in refusal(document)


def test_without_a_timeout_kubernetes_default_holds_and_is_told() -> None:
    for absent in ({}, {"timeoutSeconds": 0}, {"timeoutSeconds": None}):
        for action in ({"httpGet": {"port": 1}}, {"grpc": {"port": 1}}):
            probers, warnings = parse_probers(json.dumps({LIVEZ: {**action, **absent}}), 15020)
            assert probers[LIVEZ].seconds == 1
            assert warnings == (f"{VARIABLE}: {LIVEZ}: no timeoutSeconds; Kubernetes' default of 1 s is used",)


def test_a_lifecycle_hook_may_take_as_long_as_kubelet_waits_for_it() -> None:
    key = "/app-lifecycle/app/prestopz"
    probers, warnings = parse_probers(json.dumps({key: {"httpGet": {"port": 1}}}), 15020)
    assert probers[key].seconds == HOOK_SECONDS
    assert warnings == ()


def test_no_credential_reaches_an_error() -> None:
    header = {"name": "Authorization", "value": "Bearer s3cret"}
    for port in (0, None, 1.5, [header], header):
        assert "s3cret" not in refusal({LIVEZ: {"httpGet": {"port": port, "httpHeaders": [header]}}})
    assert "s3cret" not in refusal('{"x": "s3cret"')
    assert "s3cret" not in refusal({LIVEZ: [header]})


_JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["httpGet", "tcpSocket", "grpc", "port", "path", "scheme", "service", "timeoutSeconds"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(prober=_JSON)
def test_any_document_is_read_or_refused_in_one_line(prober: object) -> None:
    try:
        probers, _ = parse_probers(json.dumps({LIVEZ: prober}), 15020)
    except SettingsError as error:
        assert "\n" not in str(error)
    else:
        assert 1 <= probers[LIVEZ].action.port <= 65535
        assert probers[LIVEZ].seconds >= 1
