"""The secrets' view: certificates of every kind and state, and nothing of a private key."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from pilot_agent.inspect import config_dump, secrets, views
from pilot_agent.inspect.views import Wanted
from tests.support import dumps

START = datetime(2026, 1, 1, tzinfo=UTC)
END = START + timedelta(days=1)
DURING = START + timedelta(hours=1)
KEY = ec.generate_private_key(ec.SECP256R1())


def pem(serial: int = 0xB4A5, *, ca: bool | None = None, uri: str = "") -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    builder = x509.CertificateBuilder(name, name, KEY.public_key(), serial, START, END)
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, None), critical=True)
    if uri:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
        builder = builder.add_extension(names, critical=True)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.PEM)


def inline(data: bytes) -> dict[str, str]:
    return {"inline_bytes": base64.b64encode(data).decode()}


def chain(name: str, source: dict[str, str], version: str = "1") -> dict[str, Any]:
    certificate = {"certificate_chain": source, "private_key": inline(b"[redacted]")}
    return {"name": name, "version_info": version, "secret": {"name": name, "tls_certificate": certificate}}


def roots(name: str, context: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "secret": {"name": name, "validation_context": context}}


def shown(now: datetime = DURING, **section: list[dict[str, Any]]) -> list[str]:
    dump = config_dump.parse(dumps.dump(Secrets=section), "it")
    return secrets.view(dump.section("SecretsConfigDump"), now).splitlines()


def test_every_state_and_kind() -> None:
    rows = shown(
        dynamic_active_secrets=[
            chain("default", inline(pem(uri="spiffe://cluster.local/ns/a/sa/b"))),
            roots("ROOTCA", {"trusted_ca": inline(pem(0x1F, ca=True) + pem(2, ca=True))}),
            chain("kubernetes://no-ca", inline(pem(3, ca=False))),
            chain("written-out", {"inline_string": pem(4).decode()}),
            chain("file-cert:/etc/x", {"filename": "/etc/x"}),
            chain("broken", inline(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")),
            chain("waiting", {}, "uninitialized"),
        ],
        dynamic_warming_secrets=[{"name": "configmap://some/thing"}],
        static_secrets=[chain("static", inline(pem()))],
    )
    times = "2026-01-02T00:00:00Z 2026-01-01T00:00:00Z"
    assert [" ".join(row.split()) for row in rows] == [
        "RESOURCE NAME TYPE STATUS VALID CERT SERIAL NUMBER NOT AFTER NOT BEFORE",
        "configmap://some/thing WARMING false",
        f"default Cert Chain ACTIVE true b4a5 {times}",
        f"ROOTCA CA ACTIVE true 1f {times}",
        f"kubernetes://no-ca Cert Chain ACTIVE true 3 {times}",
        f"written-out Cert Chain ACTIVE true 4 {times}",
        "file-cert:/etc/x ACTIVE false",
        "broken ACTIVE false",
        "waiting UNINITIALIZED false",
    ]
    assert {row.index(word) for row, word in zip(rows, ("VALID", "false", "true"), strict=False)} == {60}


@pytest.mark.parametrize(
    ("now", "is_valid"),
    [(START - timedelta(seconds=1), "false"), (DURING, "true"), (END + timedelta(seconds=1), "false")],
)
def test_valid_is_within_its_time(now: datetime, is_valid: str) -> None:
    row = shown(now, dynamic_active_secrets=[chain("default", inline(pem()))])[1]
    assert row.split()[4] == is_valid


def test_the_roots_of_a_spiffe_validator_are_told_by_trust_domain() -> None:
    config = {
        "trust_domains": [
            {"name": "east.local", "trust_bundle": inline(pem(1, ca=True))},
            {"name": "west.local", "trust_bundle": inline(pem(2, ca=True))},
        ]
    }
    rows = shown(
        dynamic_active_secrets=[
            chain("default", inline(pem(uri="spiffe://east.local/ns/a/sa/b"))),
            roots("ROOTCA", {"custom_validator_config": {"typed_config": config}}),
        ]
    )
    assert [row.split()[-1] for row in rows] == ["DOMAIN", "east.local", "east.local", "west.local"]
    assert rows[0].endswith("     TRUST DOMAIN")


def test_none() -> None:
    assert shown() == ["No active or warming secrets found."]


def test_a_private_key_is_not_in_any_output() -> None:
    key = b"-----BEGIN PRIVATE KEY-----\nMHcCAQEE\n-----END PRIVATE KEY-----\n"
    written = chain("text", {"inline_string": pem().decode() + key.decode()})
    secret = {"tls_certificate": {"private_key": {"inline_string": "anything"}, "password": inline(b"hunter2")}}
    generic = {"generic_secret": {"secret": inline(b"token"), "secrets": {"a_b": inline(b"another")}}}
    tickets = {"session_ticket_keys": {"keys": [inline(b"hunter3")]}}
    states = [
        written,
        {"name": "k", "secret": secret},
        {"name": "g", "secret": generic},
        {"name": "t", "secret": tickets},
        chain("chain-with-key", inline(pem() + key)),
    ]
    data = dumps.dump(Secrets={"dynamic_active_secrets": states})
    dump = config_dump.parse(data, "it")
    for output in ("json", "yaml"):
        texts = [views.SINGLE["secrets"](dump, Wanted(output), DURING), views.whole(dump, data, output)]
        for text in texts:
            for hidden in (b"anything", b"hunter2", b"token", b"another", b"hunter3", pem() + key, b"MHcCAQEE"):
                assert hidden.decode() not in text
                assert base64.b64encode(hidden).decode() not in text
            assert "[redacted]" in text and "a_b" in text
    document = json.loads(views.SINGLE["secrets"](dump, Wanted("json"), DURING))
    keys = [each["secret"]["tlsCertificate"]["privateKey"] for each in document["dynamicActiveSecrets"][:2]]
    assert keys == [{"inlineBytes": "W3JlZGFjdGVkXQ=="}, {"inlineString": "[redacted]"}], "as Envoy writes it"
