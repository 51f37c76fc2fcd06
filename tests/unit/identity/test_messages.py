"""The CA's two messages, against bytes written by hand."""

import pytest

from pilot_agent.identity.messages import chain_in, request_bytes
from tests.support.described import ISTIO_CA

CSR = b"-----BEGIN CERTIFICATE REQUEST-----\n"


def field(number: int, content: bytes) -> bytes:
    """A field with a length, below 128 bytes."""
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


def metadata(signer: str) -> bytes:
    """google.protobuf.Struct{"CertSigner": signer}."""
    value = field(3, signer.encode())
    return field(1, field(1, b"CertSigner") + field(2, value))


@pytest.mark.parametrize("signer", ["", "clusterissuers.example/a"])
def test_a_request_is_csr_seconds_and_one_entry_of_metadata(signer: str) -> None:
    seconds = b"\x18\x80\xa3\x05"  # field 3, 86400
    assert request_bytes(CSR, 86400, signer) == field(1, CSR) + seconds + field(4, metadata(signer))


def test_an_answer_is_its_certificates_in_order() -> None:
    assert chain_in(field(1, b"leaf\n") + field(1, b"root\n")) == ["leaf\n", "root\n"]
    assert chain_in(b"") == []


def test_fields_of_a_newer_ca_are_skipped() -> None:
    newer = b"\x10\x07" + field(9, b"\xff") + b"\x4d\x00\x00\x00\x00" + b"\x51" + b"\x00" * 8
    assert chain_in(newer + field(1, b"leaf") + newer + field(1, b"root")) == ["leaf", "root"]


@pytest.mark.parametrize(
    "answer",
    [b"\xff\xff\xff", b"\x0a\x7fshort", b"\x0a", field(1, b"\xff\xfe"), b"\x00", b"<html>no</html>"],
    ids=["tag", "truncated", "length", "not UTF-8", "field 0", "a web page"],
)
def test_bytes_that_are_no_answer_are_refused(answer: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        chain_in(answer)


def test_a_request_is_one_to_the_protobuf_library() -> None:
    read = ISTIO_CA["IstioCertificateRequest"].FromString(request_bytes(CSR, 2**40, "s"))
    assert (read.csr, read.validity_duration) == (CSR.decode(), 2**40)
    assert dict(read.metadata) == {"CertSigner": "s"}
