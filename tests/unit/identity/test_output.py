"""OUTPUT_CERTS: three files that belong together, written when they differ, or left as they were."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pilot_agent.errors import IdentityError
from pilot_agent.files.publish import publish_all
from pilot_agent.identity.certificate import CertificateFacts
from pilot_agent.identity.output import Output
from pilot_agent.identity.slots import key_pair, validation

REPOSITORY = Path(__file__).parents[3]
FACTS = CertificateFacts("", "", "", "1", 0, 1, "", "")
ONE, TWO = key_pair(b"chain 1", b"key 1", FACTS), key_pair(b"chain 2", b"key 2", FACTS)
ROOTS = validation(b"roots")


def content(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(directory.iterdir())}


def test_a_set_is_written_into_a_directory_that_is_made(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b"
    output = Output(directory, 0o600, publish_all)
    assert not Output(directory, 0o600, publish_all).is_complete
    assert output.write(ONE, ROOTS)
    assert content(directory) == {"cert-chain.pem": "chain 1", "key.pem": "key 1", "root-cert.pem": "roots"}
    assert output.is_complete
    assert stat.S_IMODE(directory.stat().st_mode) & ~0o755 == 0


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_every_file_has_the_mode(tmp_path: Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        Output(tmp_path, mode, publish_all).write(ONE, ROOTS)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()} == {mode}


def test_what_is_the_same_is_left_alone(tmp_path: Path) -> None:
    output = Output(tmp_path, 0o600, publish_all)
    output.write(ONE, ROOTS)
    before = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    assert not output.write(ONE, ROOTS)
    assert {path.name: path.stat().st_ino for path in tmp_path.iterdir()} == before
    assert output.write(TWO, ROOTS)
    assert (tmp_path / "root-cert.pem").stat().st_ino == before["root-cert.pem"]
    assert (tmp_path / "key.pem").stat().st_ino != before["key.pem"]


def test_what_others_changed_is_mended(tmp_path: Path) -> None:
    output = Output(tmp_path, 0o600, publish_all)
    output.write(ONE, ROOTS)
    (tmp_path / "key.pem").write_text("something else")
    (tmp_path / "cert-chain.pem").unlink()
    (tmp_path / "root-cert.pem").chmod(0o666)
    assert output.write(ONE, ROOTS)
    assert content(tmp_path) == {"cert-chain.pem": "chain 1", "key.pem": "key 1", "root-cert.pem": "roots"}
    assert stat.S_IMODE((tmp_path / "root-cert.pem").stat().st_mode) == 0o600


def test_the_key_comes_before_its_chain(tmp_path: Path) -> None:
    order: list[str] = []
    output = Output(tmp_path, 0o600, lambda contents, _mode: order.extend(path.name for path in contents))
    output.write(ONE, ROOTS)
    assert order == ["key.pem", "cert-chain.pem", "root-cert.pem"]


def test_what_is_not_there_yet_is_left_out_and_what_was_written_stays(tmp_path: Path) -> None:
    output = Output(tmp_path, 0o600, publish_all)
    assert not output.write(None, None)
    assert content(tmp_path) == {}
    output.write(None, ROOTS)
    assert content(tmp_path) == {"root-cert.pem": "roots"}
    output.write(ONE, None)
    output.write(None, None)
    assert output.is_complete


# What goes wrong


def error_of(output: Output) -> str:
    with pytest.raises(IdentityError) as caught:
        output.write(TWO, ROOTS)
    assert caught.value.kind == "output"
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_a_full_disk_leaves_the_whole_old_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = Output(tmp_path, 0o600, publish_all)
    output.write(ONE, ROOTS)
    written: list[int] = []
    fchmod = os.fchmod

    def full(descriptor: int, mode: int) -> None:
        written.append(descriptor)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        fchmod(descriptor, mode)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fchmod", full)
        assert "No space left on device" in error_of(output)
    assert content(tmp_path) == {"cert-chain.pem": "chain 1", "key.pem": "key 1", "root-cert.pem": "roots"}
    assert output.write(TWO, ROOTS)
    assert content(tmp_path) == {"cert-chain.pem": "chain 2", "key.pem": "key 2", "root-cert.pem": "roots"}


def test_a_directory_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = error_of(Output(tmp_path / "file" / "out", 0o600, publish_all))
    assert said == f"OUTPUT_CERTS: {tmp_path}/file/out can't be written: Not a directory"


def test_something_else_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "cert-chain.pem").mkdir()
    said = error_of(Output(tmp_path, 0o600, publish_all))
    assert "cert-chain.pem can't be written: Is a directory" in said
    assert [each.name for each in tmp_path.glob(".*")] == [], "no draft stays"


TINY_DISK = """
import ctypes, sys
from pathlib import Path
from pilot_agent.errors import IdentityError
from pilot_agent.files.publish import publish_all
from pilot_agent.identity.certificate import CertificateFacts
from pilot_agent.identity.output import Output
from pilot_agent.identity.slots import key_pair, validation

directory = Path(sys.argv[1])
libc = ctypes.CDLL(None)
NEW_MOUNTS, RECURSIVE_PRIVATE = 0x20000, 1 << 14 | 1 << 18
assert libc.unshare(NEW_MOUNTS) == 0
assert libc.mount(None, b"/", None, RECURSIVE_PRIVATE, None) == 0
assert libc.mount(b"tmpfs", bytes(directory), b"tmpfs", 0, b"size=32k") == 0
facts = CertificateFacts("", "", "", "1", 0, 1, "", "")
output = Output(directory, 0o600, publish_all)
output.write(key_pair(b"chain 1", b"key 1", facts), validation(b"roots"))
try:
    output.write(key_pair(b"c" * 100_000, b"key 2", facts), validation(b"roots"))
except IdentityError as error:
    print(error)
print({path.name: path.read_text() for path in sorted(directory.iterdir())})
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """In a process with a mount namespace of its own, so that nobody else sees the disk."""
    command = [sys.executable, "-c", TINY_DISK, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=REPOSITORY)
    said, files = ran.stdout.splitlines()
    assert "No space left on device" in said
    assert files == "{'cert-chain.pem': 'chain 1', 'key.pem': 'key 1', 'root-cert.pem': 'roots'}"
