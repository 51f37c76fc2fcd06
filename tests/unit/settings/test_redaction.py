"""Secrets are hidden wherever they may stand, and nothing else is."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.settings.redaction import HIDDEN, is_secret, redacted


@pytest.mark.parametrize(
    "path",
    [
        "tracing.lightstep.accessToken",
        "XDS_HEADER_authorization",
        "CA_HEADER_x",
        "proxyMetadata.ISTIO_META_API_KEY",
        "proxyMetadata.MY_PASSWORD",
        "MY_SECRET",
        "DB_PASSWD",
        "runtimeValues.session-cookie",
    ],
)
def test_secrets(path: str) -> None:
    assert is_secret(path)
    assert redacted(path, "hunter2") == HIDDEN


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("CREDENTIAL_FETCHER_TYPE", "JWT"),
        ("CREDENTIAL_IDENTITY_PROVIDER", "GoogleComputeEngine"),
        ("SECRET_TTL", "24h"),
        ("SECRET_GRACE_PERIOD_RATIO", "0.5"),
        ("SECRET_GRACE_PERIOD_RATIO_JITTER", "0.01"),
        ("privateKeyProvider.cryptomb.pollDelay", "10ms"),
        ("tracing.tlsSettings.privateKey", "/etc/tls/key.pem"),
        ("tracing.tlsSettings.privateKey", "./key.pem"),
        ("tracing.tlsSettings.credentialName", "name"),
        ("tokenManagerPlugin", "x"),
        ("PKCS8_KEY", "false"),
        ("proxyMetadata.ISTIO_META_TLS_CLIENT_KEY", "/etc/certs/key.pem"),
        ("serviceCluster", "istio-proxy"),
        ("MY_TOKEN", ""),
    ],
)
def test_what_is_no_secret_is_shown(path: str, value: str) -> None:
    assert redacted(path, value) == value


def test_the_content_of_a_key_is_hidden_where_a_path_would_be_shown() -> None:
    assert redacted("tracing.tlsSettings.privateKey", "-----BEGIN PRIVATE KEY-----\nabc\n/x") == HIDDEN


def test_a_document_in_a_variable_shows_only_its_length() -> None:
    assert "abc" not in str(redacted("PROXY_CONFIG", '{"tracing": {"lightstep": {"accessToken": "abc"}}}'))
    assert redacted("PROXY_CONFIG", "") == ""


def test_the_rest_of_a_message_stays() -> None:
    message = {"lightstep": {"address": "l:1", "accessToken": "abc"}, "sampling": 5}
    assert redacted("tracing", message) == {"lightstep": {"address": "l:1", "accessToken": HIDDEN}, "sampling": 5}


secrets = st.text(st.characters(categories=["L", "N"]), min_size=12, max_size=40)


@given(secrets, st.sampled_from(["token", "apiKey", "api_key", "clientSecret", "password", "Authorization"]))
def test_a_secret_never_comes_through_at_any_depth(secret: str, name: str) -> None:
    value: Any = {"a": {"b": [{"c": 1}], name: secret}, name: {"x": secret}, f"my_{name}": [secret]}
    for path in ("proxyMetadata", "tracing.customTags"):
        assert secret not in json.dumps(redacted(path, value), ensure_ascii=False)


anything = st.text(min_size=8, max_size=40).filter(lambda text: len(set(text)) > 4)


@given(
    anything,
    st.sampled_from(
        [
            "tracing.lightstep.accessToken",
            "CA_HEADER_x",
            "XDS_HEADER_x_FILE",
            "environment.XDS_HEADER_x",
            "MY_TOKEN",
            "DB_PASSWORD",
            "X_SECRET_KEY",
            "PROXY_CONFIG",
            "annotations.proxy.istio.io/config",
        ]
    ),
)
def test_whatever_the_secret_looks_like_it_is_hidden(secret: str, path: str) -> None:
    shown = str(redacted(path, secret))
    assert shown == HIDDEN or (path.endswith(("PROXY_CONFIG", "config")) and shown.startswith(f"({len(secret)} char"))


def test_a_token_that_begins_like_a_path_is_a_token() -> None:
    assert redacted("MY_TOKEN", "/9j4AAQSkZJRg==") == HIDDEN
    assert redacted("GOOGLE_APPLICATION_CREDENTIALS", "/var/run/google.json") == "/var/run/google.json"
    assert redacted("GOOGLE_APPLICATION_CREDENTIALS", '{"type": "service_account"}') == HIDDEN


def test_the_text_of_a_private_key_is_hidden_under_any_name() -> None:
    assert redacted("configPath", "-----BEGIN EC PRIVATE KEY-----\nabc") == HIDDEN
    assert redacted("caCertificatesPem", ["-----BEGIN CERTIFICATE-----\nabc"]) == ["-----BEGIN CERTIFICATE-----\nabc"]


@pytest.mark.parametrize("key", ["value", "defaultValue"])
def test_the_value_beside_a_secret_name_is_hidden(key: str) -> None:
    headers = [{"name": "Authorization", key: "Bearer abc"}, {"name": "Accept", key: "text/plain"}]
    assert redacted("readinessProbe", {"httpGet": {"httpHeaders": headers}}) == {
        "httpGet": {
            "httpHeaders": [{"name": "Authorization", key: HIDDEN}, {"name": "Accept", key: "text/plain"}],
        }
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"/app-health": {"token": "abc", "port": 80}}', '{"/app-health": {"token": "(hidden)", "port": 80}}'),
        ('[{"password": "abc"}]', '[{"password": "(hidden)"}]'),
        ('{ "port" : 80 }', '{ "port" : 80 }'),
        ("{token: abc}", "(12 characters)"),
        ("{port: 80}", "{port: 80}"),
        ("[" * 10000 + "token", "(10005 characters)"),
    ],
)
def test_json_in_a_text_is_looked_through(text: str, shown: str) -> None:
    assert redacted("ISTIO_KUBE_APP_PROBERS", text) == shown


def test_a_password_in_an_address_is_hidden() -> None:
    assert redacted("HTTP_PROXY", "http://me:abc@proxy:3128") == "http://me:(hidden)@proxy:3128"
    assert redacted("X", "mail me@example.com") == "mail me@example.com"


@given(anything.filter(lambda text: "hidden" not in text))
def test_a_secret_in_json_in_a_text_never_comes_through(secret: str) -> None:
    text = json.dumps({"a": [{"accessToken": secret}]}, ensure_ascii=False)
    assert redacted("ISTIO_METAJSON_X", text) == '{"a": [{"accessToken": "(hidden)"}]}'


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["", "a", "b c"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "port", "name"]), inner),
    max_leaves=8,
)


@given(plain)
def test_what_has_no_secret_is_shown_as_it_is(value: object) -> None:
    assert redacted("tracing", value) == value
