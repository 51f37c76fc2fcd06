"""What is told of certificate files: which ones, whose key and root lie beside them, and what is wrong with the two."""

import base64
import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding

from pilot_agent.errors import IdentityError
from pilot_agent.identity.certificate_files import Beside, certificates_at
from tests.support.authority import Authority, pem_of

ID = "spiffe://cluster.local/ns/demo/sa/hello"


@pytest.fixture
def authority() -> Authority:
    return Authority("the root")


@pytest.fixture
def directory(tmp_path: Path, authority: Authority) -> Path:
    """Of a workload, as the agent looks for it."""
    pair = authority.pair(ID)
    write(tmp_path, {"cert-chain.pem": pair.chain, "key.pem": pair.key, "root-cert.pem": authority.pem})
    return tmp_path


def write(directory: Path, contents: dict[str, str]) -> None:
    for name, content in contents.items():
        (directory / name).write_text(content)
        (directory / name).chmod(0o600)


def test_a_workloads_directory_is_its_chain_and_its_root(directory: Path) -> None:
    leaf, root = certificates_at(directory)
    assert (leaf.path, leaf.facts.spiffe_id, leaf.is_ca, leaf.is_own_root) == (
        directory / "cert-chain.pem",
        ID,
        False,
        False,
    )
    assert (leaf.key, leaf.root) == (Beside(directory / "key.pem"), Beside(directory / "root-cert.pem"))
    assert (root.path, root.facts.subject, root.is_ca, root.is_own_root) == (
        directory / "root-cert.pem",
        "O=the root",
        True,
        True,
    )
    assert (root.key, root.root) == (None, None)


def test_the_others_of_a_chain_are_counted_and_lead_where_the_first_one_does(
    tmp_path: Path, authority: Authority
) -> None:
    middle = Authority("the middle", authority)
    pair = middle.pair(ID)
    write(tmp_path, {"cert-chain.pem": pair.chain + middle.pem, "key.pem": pair.key, "root-cert.pem": authority.pem})
    leaf, second, root = certificates_at(tmp_path)
    assert [(each.number, each.of) for each in (leaf, second, root)] == [(1, 2), (2, 2), (1, 1)]
    assert leaf.root == Beside(tmp_path / "root-cert.pem")
    assert (second.is_ca, second.is_own_root, second.key, second.root) == (True, False, None, None)


def test_a_key_of_another_certificate_does_not_fit(directory: Path, authority: Authority) -> None:
    write(directory, {"key.pem": authority.pair(ID).key})
    assert certificates_at(directory)[0].key == Beside(directory / "key.pem", "does not fit")


def test_an_expired_certificate_has_a_key_that_fits(directory: Path, authority: Authority) -> None:
    pair = authority.pair(ID, lifetime_s=60, not_before=1_000_000_000)
    write(directory, {"cert-chain.pem": pair.chain, "key.pem": pair.key})
    leaf = certificates_at(directory)[0]
    assert (leaf.facts.not_after, leaf.key) == (1_000_000_060, Beside(directory / "key.pem"))


@pytest.mark.parametrize(
    "content", ["", "garbage", "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n"]
)
def test_a_key_that_is_none_is_told_from_one_that_does_not_fit(directory: Path, content: str) -> None:
    write(directory, {"key.pem": content})
    problem = "can't be read: it must be PEM without a password"
    assert certificates_at(directory)[0].key == Beside(directory / "key.pem", problem)


def test_a_key_that_is_missing_and_one_that_is_a_directory(directory: Path) -> None:
    (directory / "key.pem").unlink()
    assert certificates_at(directory)[0].key == Beside(directory / "key.pem", "is missing")
    (directory / "key.pem").mkdir(mode=0o700)
    assert certificates_at(directory)[0].key == Beside(directory / "key.pem", "can't be read")


def test_a_key_that_others_can_read_is_a_warning(directory: Path) -> None:
    (directory / "key.pem").chmod(0o640)
    warning = f"{directory / 'key.pem'} can be read by others (mode 0640): make it 0600"
    assert certificates_at(directory)[0].key == Beside(directory / "key.pem", None, (warning,))


def test_a_root_that_has_not_signed_it_says_so(directory: Path) -> None:
    write(directory, {"root-cert.pem": Authority("another root").pem})
    root = certificates_at(directory)[0].root
    assert root is not None
    assert root.problem == "does not verify it: no root certificate we have issued O=the root"


def test_a_root_that_is_none_is_the_error_of_its_own_file(directory: Path) -> None:
    write(directory, {"root-cert.pem": "garbage"})
    with pytest.raises(IdentityError, match=r"root-cert\.pem has no certificate in it \(7 bytes\)$"):
        certificates_at(directory)
    assert certificates_at(directory / "cert-chain.pem")[0].root == Beside(directory / "root-cert.pem", "can't be read")


def test_a_file_by_another_name_has_the_key_of_its_own_name(tmp_path: Path, authority: Authority) -> None:
    pair = authority.pair("hello.example")
    write(tmp_path, {"hello.crt": pair.chain, "world.pem": pair.chain, "other.pem": pair.chain})
    write(tmp_path, {"hello.key": pair.key, "world-key.pem": pair.key})
    keys = {name: certificates_at(tmp_path / name)[0].key for name in ("hello.crt", "world.pem", "other.pem")}
    assert keys == {
        "hello.crt": Beside(tmp_path / "hello.key"),
        "world.pem": Beside(tmp_path / "world-key.pem"),
        "other.pem": None,
    }


@pytest.mark.parametrize("name", ["nowhere", "file/below", "empty"])
def test_where_there_is_nothing_it_says_what_to_give(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(IdentityError) as caught:
        certificates_at(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name} ") and "\n" not in str(caught.value)


def test_a_name_no_file_can_have_is_an_error_like_any_other(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="can't be read: File name too long"):
        certificates_at(tmp_path / ("n" * 256))


def test_a_kind_of_key_that_envoy_does_not_take_is_shown_all_the_same(tmp_path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.OID_COMMON_NAME, "odd")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    (tmp_path / "odd.pem").write_text(pem_of(builder.sign(key, None)))
    (shown,) = certificates_at(tmp_path / "odd.pem")
    assert (shown.facts.key, shown.is_own_root, shown.is_ca) == ("Ed25519PublicKey", True, False)


def test_damage_the_parser_finds_late_is_one_line_too(tmp_path: Path, authority: Authority) -> None:
    """Version 4 of X.509 does not exist: that is no ValueError of the library's."""
    der = authority.certificate.public_bytes(Encoding.DER)
    at = der.index(b"\xa0\x03\x02\x01\x02") + 4
    body = base64.encodebytes(der[:at] + b"\x03" + der[at + 1 :]).decode()
    (tmp_path / "odd.pem").write_text(f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n")
    with pytest.raises(IdentityError, match=r"odd\.pem has a certificate") as caught:
        certificates_at(tmp_path / "odd.pem")
    assert "\n" not in str(caught.value)


def test_a_serial_number_a_later_library_will_refuse_is_shown_today(tmp_path: Path, authority: Authority) -> None:
    der = bytearray(authority.certificate.public_bytes(Encoding.DER))
    at = bytes(der).index(b"\xa0\x03\x02\x01\x02\x02") + 7
    der[at] |= 0x80
    body = base64.encodebytes(bytes(der)).decode()
    (tmp_path / "odd.pem").write_text(f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n")
    (shown,) = certificates_at(tmp_path / "odd.pem")
    assert shown.facts.serial.startswith("-")


def test_a_self_signed_certificate_needs_no_other_root(directory: Path) -> None:
    own = Authority("of its own")
    write(directory, {"own.pem": own.pem})
    (shown,) = certificates_at(directory / "own.pem")
    assert (shown.is_own_root, shown.root) == (True, None)
