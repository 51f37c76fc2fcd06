"""A secret as bytes for the server, and as JSON for files: the same to the protobuf library."""

import pytest
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from google.protobuf import json_format

from pilot_agent.identity.slots import Secret, validation
from pilot_agent.sds.packing import KEY_METHOD, packed
from pilot_agent.sds.resources import SECRET_TYPE, Provider, resource
from tests.unit.sds.served import pair, roots

SECRETS = {"pair": pair(), "roots": roots(), "roots with a list": validation(b"roots", b"list")}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_bytes_and_json_are_one_message(secret: Secret) -> None:
    found = packed("its name", secret, None)
    told = json_format.ParseDict(resource("its name", secret), secret_pb2.Secret())
    assert found == {"type_url": SECRET_TYPE, "value": told.SerializeToString()}


@pytest.mark.parametrize("provider", [("cryptomb", 10_000_000, True), ("qat", 3_000_000_001, False)])
def test_with_a_private_key_provider_too(provider: Provider) -> None:
    secret = pair()
    read = secret_pb2.Secret.FromString(packed("default", secret, provider)["value"])
    described = resource("default", secret, provider)["tls_certificate"]["private_key_provider"]
    found = read.tls_certificate.private_key_provider
    assert (found.provider_name, found.fallback) == (described["provider_name"], described["fallback"])
    assert found.typed_config.type_url == described["typed_config"]["@type"]
    config = KEY_METHOD.decode(found.typed_config.value)
    seconds, nanos = divmod(provider[1], 10**9)
    assert config == {"private_key": {"inline_bytes": secret.key}, "poll_delay": {"seconds": seconds, "nanos": nanos}}
    assert not read.tls_certificate.HasField("private_key")
