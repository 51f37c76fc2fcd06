"""Keys and certificates in a child: the same answers as in this process, and what becomes of calls when it fails."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from pilot_agent.errors import IdentityError
from pilot_agent.files.publish import publish_all
from pilot_agent.identity import crypto_process
from pilot_agent.identity.certificate import check_pair, facts_of, parse_chain
from pilot_agent.identity.crypto import IN_PROCESS, OPERATIONS, Crypto
from pilot_agent.identity.crypto_child import CryptoChild
from pilot_agent.identity.crypto_process import command, spawn
from pilot_agent.identity.crypto_server import packed, read_message, result_of
from pilot_agent.identity.keys import KeySpec
from pilot_agent.identity.local_ca import create
from tests.support.authority import Authority
from tests.support.confidential import confide
from tests.support.eventually import eventually
from tests.support.proc_tree import proc_tree

ROOT = Authority("root of the child's tests")
SPIFFE_ID = "spiffe://cluster.local/ns/foo/sa/bar"
PAIR, OTHER = ROOT.pair(SPIFFE_ID), ROOT.pair(SPIFFE_ID)
STRANGER = Authority("another root").pem
ISSUED = PAIR.chain.encode(), PAIR.key.encode(), ROOT.pem.encode()
EC, SLOW = KeySpec("ECDSA"), KeySpec("RSA", 16384)
"""16384 bits take half a minute and more."""
ECHO = """
import os, sys, time
sys.path[:] = sys.argv[1:]
from pilot_agent.identity.crypto_server import packed, read_message
number, operation, arguments = read_message(lambda size: os.read(0, size))
"""


def script(rest: str) -> list[str]:
    """A child that reads one call, and then does this."""
    return [sys.executable, "-I", "-S", "-c", ECHO + rest, *sys.path]


@pytest.fixture
def child() -> Iterator[CryptoChild]:
    made = CryptoChild()
    yield made
    made.close()


def running() -> list[int]:
    """Children of this process that work with keys."""
    return [each.pid for each in proc_tree(os.getpid()) if "crypto_server" in each.command]


def outcome(call: Callable[[Crypto, Path], Any], crypto: Crypto, directory: Path) -> Any:
    try:
        return call(crypto, directory)
    except IdentityError as error:
        return error.kind, str(error)


def failure(call: Callable[[], Any]) -> str:
    with pytest.raises(IdentityError) as caught:
        call()
    assert caught.value.kind == "crypto"
    return str(caught.value)


# The same answers


CALLS: dict[str, Callable[[Crypto, Path], Any]] = {
    "facts": lambda crypto, _: crypto.first_facts(ROOT.pem.encode(), "it"),
    "facts of nothing": lambda crypto, _: crypto.first_facts(b"", "it"),
    "roots": lambda crypto, _: crypto.check_roots(f"{ROOT.pem}{ROOT.pem}".encode(), "it"),
    "no roots": lambda crypto, _: crypto.check_roots(b"\xff", "it"),
    "a bad root": lambda crypto, _: crypto.check_roots(
        f"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n{ROOT.pem}".encode(), "it"
    ),
    "no list": lambda crypto, _: crypto.check_crl(b"nothing", "it"),
    "verified": lambda crypto, _: crypto.why_unverified(PAIR.chain.encode(), [ROOT.pem]),
    "not verified": lambda crypto, _: crypto.why_unverified(PAIR.chain.encode(), (STRANGER,)),
    "a pair": lambda crypto, _: crypto.check_pair(PAIR.chain.encode(), PAIR.key.encode(), "it", time.time()),
    "an old pair": lambda crypto, _: crypto.check_pair(PAIR.chain.encode(), PAIR.key.encode(), "it", 2e9 * 2),
    "no pair": lambda crypto, _: crypto.check_pair(PAIR.chain.encode(), OTHER.key.encode(), "it", time.time()),
    "issued": lambda crypto, _: crypto.check_issued(*ISSUED, [ROOT.pem], time.time()),
    "issued by another": lambda crypto, _: crypto.check_issued(*ISSUED[:2], STRANGER.encode(), (), time.time()),
    "issued for another": lambda crypto, _: crypto.check_issued(ISSUED[0], OTHER.key.encode(), b"", (), time.time()),
    "no CA": lambda crypto, directory: crypto.sign_locally(directory, b"", 60, time.time()),
}


def test_every_operation_answers_as_in_this_process(child: CryptoChild, tmp_path: Path) -> None:
    for name, call in CALLS.items():
        here, there = (outcome(call, crypto, tmp_path) for crypto in (IN_PROCESS, child))
        assert (type(here), here) == (type(there), there), name
    assert len(running()) == 1, "one child did all of it"


@pytest.mark.parametrize("spec", [EC, KeySpec("ECDSA", curve="P384", is_pkcs8=True), KeySpec()], ids=str)
def test_a_request_is_made_and_signed_by_a_local_ca(child: CryptoChild, tmp_path: Path, spec: KeySpec) -> None:
    now = time.time()
    create(tmp_path, "cluster.local", 3600, now, publish_all)
    request = child.make_request(spec, SPIFFE_ID)
    confide(request.key)
    assert repr(request) == "SigningRequest(...)"
    chain, warnings = child.sign_locally(tmp_path, request.csr, 60, now)
    joined = "".join(chain).encode()
    assert check_pair(joined, request.key, "it", now) == facts_of(parse_chain(joined, "it")[0])
    assert warnings == ()


def test_every_operation_of_the_protocol_can_be_asked_for() -> None:
    assert set(OPERATIONS) == {name for name in vars(Crypto) if not name.startswith("_")}
    assert all(callable(getattr(CryptoChild, name)) for name in OPERATIONS)


@pytest.mark.parametrize("name", ["sign", "__class__", "_private", ""])
def test_nothing_but_an_operation_can_be_asked_for(name: str) -> None:
    assert result_of(name, ()) == ("internal", f"{name} failed: ValueError('there is no such operation')")


def test_a_large_file_passes(child: CryptoChild) -> None:
    many = ROOT.pem.encode() * (1_000_000 // len(ROOT.pem))
    assert len(child.check_roots(many, "it").blocks) > 1000


def test_many_threads_may_call_at_once(child: CryptoChild) -> None:
    chains = [ROOT.pair(f"{SPIFFE_ID}{number}").chain.encode() for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda chain: child.first_facts(chain, "it").spiffe_id, chains * 10))
    assert found == [f"{SPIFFE_ID}{number}" for number in range(8)] * 10
    assert len(running()) == 1


def test_a_slow_key_does_not_hold_up_a_check(child: CryptoChild) -> None:
    slow = child.begin_request(SLOW, SPIFFE_ID)
    assert child.check_roots(ROOT.pem.encode(), "it").blocks
    assert not slow.done()


def test_a_bug_in_one_call_is_an_error_of_that_call(child: CryptoChild) -> None:
    with pytest.raises(IdentityError, match="first_facts failed: ") as caught:
        child.first_facts("no bytes", "it")  # type: ignore[arg-type]
    assert caught.value.kind == "internal"
    assert child.check_roots(ROOT.pem.encode(), "it").blocks
    assert len(running()) == 1


# What is not told


def test_no_key_is_in_its_arguments_its_environment_or_its_files(child: CryptoChild) -> None:
    request = child.make_request(EC, SPIFFE_ID)
    child.first_facts(ROOT.pem.encode(), "it")
    assert child.pid is not None
    line = request.key.splitlines()[1]
    for name in ("cmdline", "environ"):
        assert line not in Path(f"/proc/{child.pid}/{name}").read_bytes()
    opened = {os.readlink(each) for each in Path(f"/proc/{child.pid}/fd").iterdir()}
    assert {each for each in opened if not each.startswith(("socket:", "/dev/", "pipe:"))} <= {
        os.readlink("/proc/self/fd/2")
    }
    limits = Path(f"/proc/{child.pid}/limits").read_text()
    assert next(line for line in limits.splitlines() if "core file" in line).split()[4:6] == ["0", "0"]


def test_the_child_has_a_group_of_its_own_and_loads_no_more_than_it_needs(child: CryptoChild) -> None:
    child.make_request(EC, SPIFFE_ID)
    assert child.pid is not None
    assert os.getpgid(child.pid) == child.pid
    maps = Path(f"/proc/{child.pid}/maps").read_text()
    assert "_rust.abi3" in maps
    assert "cygrpc" not in maps and "_ssl.cpython" not in maps


# Ends


def test_it_ends_when_nothing_is_called_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    child = CryptoChild(idle_s=0.3)
    try:
        first = (child.check_roots(ROOT.pem.encode(), "it"), child.pid)[1]
        eventually(lambda: not running())
        assert child.pid is None
        second = (child.check_roots(ROOT.pem.encode(), "it"), child.pid)[1]
        assert None not in (first, second) and first != second
    finally:
        child.close()


def test_it_does_not_end_while_a_call_is_under_way() -> None:
    child = CryptoChild(script("time.sleep(1); os.write(1, packed((number, '', (('a',), ()))))"), idle_s=0.1)
    try:
        assert child.check_roots(b"", "it") == (("a",), ())
    finally:
        child.close()


def test_killed_during_a_call_it_is_one_error_and_the_next_call_has_a_new_child(child: CryptoChild) -> None:
    pending = [child.begin_request(SLOW, SPIFFE_ID), child.begin_request(SLOW, SPIFFE_ID)]
    before = child.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    for each in pending:
        words = failure(each.result)
        assert words == "the child process for keys and certificates failed at make_request: killed by signal 9"
    assert child.check_roots(ROOT.pem.encode(), "it").blocks
    assert child.pid not in (None, before)


def test_killed_at_rest_it_is_no_error(child: CryptoChild) -> None:
    child.check_roots(ROOT.pem.encode(), "it")
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    eventually(lambda: child.pid is None)
    assert child.check_roots(ROOT.pem.encode(), "it").blocks


def test_a_child_that_hangs_is_killed_after_a_while() -> None:
    child = CryptoChild(script("time.sleep(60)"), call_within_s=0.3)
    try:
        words = failure(lambda: child.check_roots(ROOT.pem.encode(), "it"))
        assert words.endswith("failed at check_roots: it did not answer check_roots in time, and was killed")
        assert child.pid is None
    finally:
        child.close()


def test_a_child_that_reads_nothing_holds_nobody_for_ever() -> None:
    argv = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"]
    child = CryptoChild(argv, call_within_s=0.3)
    try:
        with ThreadPoolExecutor(3) as threads:
            calls = [threads.submit(child.check_roots, b"x" * 1_000_000, "it") for _ in range(3)]
            for call in calls:
                failure(call.result)
    finally:
        child.close()


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("sys.exit(3)", "exit code 3"),
        ("os.write(1, b'\\xff' * 4)", "its answer can't be read: a message of 4294967295 bytes"),
        ("os.write(1, packed((number, '', 0))[:-1])", "its answer can't be read: a message is cut off"),
        ("os.write(1, (4).to_bytes(4) + b'junk')", "its answer can't be read: bad marshal data"),
        ("os.write(1, packed((99, '', 0)))", "its answer can't be read: 99"),
        ("os.write(1, packed((1, 2)))", "its answer can't be read: not enough values"),
    ],
)
def test_an_answer_that_is_none_is_an_error(rest: str, words: str) -> None:
    child = CryptoChild(script(rest))
    try:
        assert words in failure(lambda: child.check_roots(b"", "it"))
    finally:
        child.close()


def test_what_can_not_be_started_is_an_error() -> None:
    child = CryptoChild(["/no/such/interpreter"])
    assert "can't be started: No such file or directory" in failure(lambda: child.check_roots(b"", "it"))
    child.close()


def test_a_closed_one_ends_what_is_under_way_and_takes_no_more(child: CryptoChild) -> None:
    pending = child.begin_request(SLOW, SPIFFE_ID)
    child.close()
    assert "killed by signal 9" in failure(pending.result)
    assert "the agent is ending" in failure(lambda: child.check_roots(b"", "it"))
    assert running() == []
    child.close()


def test_the_end_of_its_parent_is_its_own(tmp_path: Path) -> None:
    """In the middle of a key that would take a minute, and by SIGKILL."""
    code = (
        "import os, signal\n"
        "from pilot_agent.identity.crypto_child import CryptoChild\n"
        "from pilot_agent.identity.options import KeySpec\n"
        "child = CryptoChild()\n"
        "child.begin_request(KeySpec('RSA', 16384), 'spiffe://a/b')\n"
        "child.check_roots(open(os.environ['ROOT'], 'rb').read(), 'it')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    (tmp_path / "root.pem").write_text(ROOT.pem)
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", code],
        {**os.environ, "ROOT": str(tmp_path / "root.pem"), "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL

    def is_gone() -> bool:
        """It may be ours by now, where this process is the one that gets orphans: then it is for us to reap."""
        left = [each for each in proc_tree(os.getpid()) if "crypto_server" in each.command or each.is_zombie]
        for each in left:
            if each.is_zombie and each.parent == os.getpid():
                os.waitpid(each.pid, os.WNOHANG)
        return not left

    eventually(is_gone)


# Who reaps it


def test_a_child_that_was_spawned_before_is_the_first() -> None:
    spawned = spawn()
    child = CryptoChild(spawned=spawned)
    try:
        assert child.pid == spawned.process.pid
        assert child.check_roots(ROOT.pem.encode(), "it").blocks
        assert running() == [spawned.process.pid]
    finally:
        child.close()


def test_where_children_are_reaped_by_the_kernel_nothing_hangs(child: CryptoChild) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        pending = child.begin_request(SLOW, SPIFFE_ID)
        child.close()
        assert "failed at make_request" in failure(pending.result)
    finally:
        signal.signal(signal.SIGCHLD, before)


class Owner:
    """As the reaper: nothing is owned but under its lock."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.collectors: dict[int, Callable[[], bool]] = {}

    def held(self) -> AbstractContextManager[Any]:
        return self.lock

    def own(self, pid: int, collect: Callable[[], bool]) -> None:
        self.collectors[pid] = collect


def test_each_child_has_an_owner_who_may_reap_it(child: CryptoChild) -> None:
    child.check_roots(ROOT.pem.encode(), "it")
    first, owner = child.pid, Owner()
    child.owned_by(owner)
    assert list(owner.collectors) == [first]
    child.check_roots(ROOT.pem.encode(), "it")
    assert first is not None and not owner.collectors[first]()
    os.kill(first, signal.SIGKILL)
    eventually(owner.collectors[first])
    eventually(lambda: child.pid is None)
    child.check_roots(ROOT.pem.encode(), "it")
    assert list(owner.collectors) == [first, child.pid]


# Messages


def test_messages_come_in_pieces_of_any_size() -> None:
    whole = packed((1, "a", (b"b",))) + packed((2,))
    for size in (1, 2, 3, 1000):
        rest = whole

        def read(most: int, size: int = size) -> bytes:
            nonlocal rest
            piece, rest = rest[: min(most, size)], rest[min(most, size) :]
            return piece

        assert [read_message(read), read_message(read), read_message(read)] == [(1, "a", (b"b",)), (2,), None]


def test_its_interpreter_is_ours_without_a_site(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["/a b", "/c"])
    for cached, flags in ((False, ["-I", "-S"]), (True, ["-I", "-S", "-B"])):
        monkeypatch.setattr(sys, "dont_write_bytecode", cached)
        assert command() == [sys.executable, *flags, "-c", crypto_process._CODE, "/a b", "/c"]
