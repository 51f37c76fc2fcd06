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
