"""Certificate files as one set: read together, judged together, and only when something changed."""

import os
import time
from pathlib import Path

import pytest

from pilot_agent.errors import IdentityError
from pilot_agent.identity.mounted import Mounted, Reading
from pilot_agent.identity.options import Files
from pilot_agent.identity.slots import Secret
from tests.support.authority import Authority, Pair
from tests.support.mounts import Mount

SPIFFE_ID = "spiffe://cluster.local/ns/foo/sa/bar"
GARBAGE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.fixture(scope="module")
def root() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def pair(root: Authority) -> Pair:
    return root.pair(SPIFFE_ID)


class Stand:
    """Files in a directory, and what was read of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.files = Files.of_directory(directory)
        self.mounted = Mounted(self.files, directory / "crl.pem")
        self.now = time.time()

    def write(self, pair: Pair | None = None, root: str | None = None, crl: str | None = None) -> None:
        if pair is not None:
            (self.directory / "key.pem").write_text(pair.key)
            (self.directory / "cert-chain.pem").write_text(pair.chain)
        if root is not None:
            (self.directory / "root-cert.pem").write_text(root)
        if crl is not None:
            (self.directory / "crl.pem").write_text(crl)

    def read(self) -> Reading:
        return self.mounted.read(self.now)[0]

    def is_news(self) -> bool:
        return self.mounted.read(self.now)[1]

    def pair_error(self) -> IdentityError:
        error = self.read().pair
        assert isinstance(error, IdentityError)
        return error


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path)


def test_a_whole_set_is_read(stand: Stand, root: Authority, pair: Pair) -> None:
    crl = root.crl(5)
    stand.write(pair, root.pem, crl)
    reading, is_news = stand.mounted.read(stand.now)
    assert is_news
    assert isinstance(reading.pair, Secret)
    assert (reading.pair.chain, reading.pair.key) == (pair.chain.encode(), pair.key.encode())
    assert reading.pair.facts is not None and reading.pair.facts.spiffe_id == SPIFFE_ID
    assert reading.roots == (root.pem.strip(),)
    assert reading.crl == crl.encode()
    assert (reading.errors, reading.warnings) == ([], ())


def test_what_is_not_there_is_neither_good_nor_wrong(stand: Stand) -> None:
    assert stand.mounted.read(stand.now) == (Reading(), True)
    assert not stand.is_news()
    for name in ("key.pem", "cert-chain.pem", "root-cert.pem", "crl.pem"):
        (stand.directory / name).write_text("")
    assert stand.read() == Reading(), "empty is not there"


def test_the_directory_need_not_be_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for directory in (tmp_path / "missing", tmp_path / "file"):
        assert Mounted(Files.of_directory(directory)).read(0)[0] == Reading()


def test_a_set_may_have_no_pair_or_no_root(stand: Stand, root: Authority, pair: Pair) -> None:
    stand.write(pair, root.pem)
    only_root = Mounted(Files(root=stand.files.root))
    assert only_root.read(stand.now)[0] == Reading(roots=(root.pem.strip(),))
    only_pair = Mounted(stand.files._replace(root=None))
    assert isinstance(only_pair.read(stand.now)[0].pair, Secret)
    assert only_root.paths == [stand.files.root]
    assert stand.mounted.paths == [*stand.files.all, stand.directory / "crl.pem"]


def test_the_same_bytes_are_no_news_whoever_wrote_them(stand: Stand, root: Authority, pair: Pair) -> None:
    stand.write(pair, root.pem)
    assert (stand.is_news(), stand.is_news()) == (True, False)
    stand.write(pair, root.pem)
    os.utime(stand.directory / "key.pem", (1, 1))
    assert not stand.is_news()


def test_a_changed_key_alone_is_seen(stand: Stand, root: Authority, pair: Pair) -> None:
    """Which Istio's agent does not: it watches the chain only."""
    stand.write(pair)
    assert stand.is_news()
    (stand.directory / "key.pem").write_text(pair.key + "\n")
    reading, is_news = stand.mounted.read(stand.now)
    assert is_news
    assert isinstance(reading.pair, Secret) and reading.pair.key == f"{pair.key}\n".encode()
    (stand.directory / "key.pem").write_text(root.pair(SPIFFE_ID).key)
    assert stand.pair_error().kind == "key_mismatch"


def test_a_changed_root_or_list_is_seen(stand: Stand, root: Authority, pair: Pair) -> None:
    stand.write(pair, root.pem, root.crl())
    assert stand.is_news()
    stand.write(root=root.pem + Authority("other").pem)
    assert stand.is_news()
    stand.write(crl=root.crl(7))
    assert stand.is_news()
    (stand.directory / "crl.pem").unlink()
    assert stand.is_news()
    assert stand.read().crl is None


@pytest.mark.parametrize("name", ["key.pem", "cert-chain.pem"])
def test_half_a_pair_is_wrong_and_names_the_missing_half(stand: Stand, pair: Pair, name: str) -> None:
    stand.write(pair)
    (stand.directory / name).unlink()
    assert stand.pair_error().kind == "file_missing"
    said = f"{stand.directory / name} is missing or empty, and the other of the pair is there"
    assert str(stand.pair_error()) == said
    (stand.directory / name).write_text("")
    assert str(stand.pair_error()) == said


def test_parts_are_judged_each_for_itself(stand: Stand, root: Authority, pair: Pair) -> None:
    stand.write(pair, GARBAGE, "no list")
    reading = stand.read()
    assert isinstance(reading.pair, Secret)
    assert [error.kind for error in reading.errors] == ["pem", "pem"]
    assert f"the root file {stand.files.root}" in str(reading.roots)
    assert f"the revocation list {stand.directory / 'crl.pem'}" in str(reading.crl)
    stand.write(Pair(GARBAGE, pair.key), root.pem, root.crl())
    reading = stand.read()
    assert reading.roots == (root.pem.strip(),)
    assert [str(error) for error in reading.errors] == [str(reading.pair)]


def test_what_can_not_be_read_is_told_with_its_reason(stand: Stand, pair: Pair) -> None:
    stand.write(pair)
    (stand.directory / "key.pem").unlink()
    (stand.directory / "key.pem").mkdir()
    assert stand.pair_error().kind == "file_unreadable"
    assert str(stand.pair_error()) == f"{stand.directory / 'key.pem'} can't be read: Is a directory"


def test_a_file_of_any_size_is_not_read_into_memory(stand: Stand) -> None:
    with (stand.directory / "root-cert.pem").open("wb") as file:
        file.truncate(10**12)
    (error,) = stand.read().errors
    assert (error.kind, "larger than" in str(error)) == ("file_unreadable", True)


def test_roots_that_are_left_out_are_warned_of(stand: Stand, root: Authority) -> None:
    stand.write(root=GARBAGE + root.pem)
    reading = stand.read()
    assert reading.roots == (root.pem.strip(),)
    (warning,) = reading.warnings
    assert warning.startswith(f"certificate 1 of the root file {stand.files.root} is left out: ")


def test_the_same_fault_is_no_news(stand: Stand, pair: Pair) -> None:
    stand.write(Pair(GARBAGE, pair.key))
    assert (stand.is_news(), stand.is_news()) == (True, False)
    stand.write(Pair(GARBAGE * 2, pair.key))
    assert stand.is_news()


# Time passes over files that stay as they are


def test_a_pair_that_expires_is_news(stand: Stand, root: Authority) -> None:
    pair = root.pair(SPIFFE_ID, not_before=stand.now - 10, lifetime_s=100)
    stand.write(pair, root.pem)
    assert isinstance(stand.read().pair, Secret)
    stand.now += 101
    reading, is_news = stand.mounted.read(stand.now)
    assert is_news
    assert [error.kind for error in reading.errors] == ["expired"]
    assert (stand.is_news(), reading.roots) == (False, (root.pem.strip(),))
    stand.write(root.pair(SPIFFE_ID))
    assert isinstance(stand.read().pair, Secret)


def test_a_pair_that_becomes_valid_is_news(stand: Stand, root: Authority) -> None:
    stand.write(root.pair(SPIFFE_ID, not_before=stand.now + 1000))
    assert stand.pair_error().kind == "not_yet_valid"
    assert not stand.is_news()
    stand.now += 1000
    reading, is_news = stand.mounted.read(stand.now)
    assert (isinstance(reading.pair, Secret), is_news) == (True, True)


# How Kubernetes replaces them


def test_a_swap_of_the_whole_directory_is_one_piece_of_news(tmp_path: Path, root: Authority, pair: Pair) -> None:
    mount = Mount(tmp_path / "mount")
    mount.publish(cert_chain=pair.chain, key=pair.key)
    mounted = Mounted(Files(mount.directory / "cert_chain", mount.directory / "key"))
    assert isinstance(mounted.read(time.time())[0].pair, Secret)
    other = root.pair(SPIFFE_ID)
    mount.publish(cert_chain=other.chain, key=other.key)
    reading, is_news = mounted.read(time.time())
    assert is_news
    assert isinstance(reading.pair, Secret) and reading.pair.chain == other.chain.encode()
    mount.publish(cert_chain=other.chain, key=other.key)
    assert not mounted.read(time.time())[1]


def test_a_set_read_across_a_swap_is_read_again(tmp_path: Path, root: Authority, pair: Pair) -> None:
    other = root.pair(SPIFFE_ID)
    mount = Mount(tmp_path / "mount")
    mount.publish(cert_chain=pair.chain, key=pair.key)

    class Swapping(Mounted):
        swaps = 0

        def _contents(self) -> tuple[bytes, list[bytes | IdentityError | None]]:
            seen, contents = super()._contents()
            if self.swaps == 0:
                self.swaps += 1
                mount.publish(cert_chain=other.chain, key=other.key)
                assert self.files.key is not None
                contents[1] = self.files.key.read_bytes()
                seen = b"half of each"
            return seen, contents

    mounted = Swapping(Files(mount.directory / "cert_chain", mount.directory / "key"))
    reading, is_news = mounted.read(time.time())
    assert isinstance(reading.pair, Secret) and reading.pair.chain == other.chain.encode()
    assert (is_news, mounted.read(time.time())[1]) == (True, False)
