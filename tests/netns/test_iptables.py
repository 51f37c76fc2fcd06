"""Capture rules in a real kernel, both back ends of iptables: recordings, transitions, faults, and where TCP lands."""

import fcntl
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from pilot_agent.errors import InterceptionError
from pilot_agent.interception.apply import carry_out, intend
from pilot_agent.interception.execute import Commands, Outcome
from pilot_agent.interception.kernel import Backend, Iptables, binary
from pilot_agent.interception.plan import has_own
from pilot_agent.interception.rules import Family
from pilot_agent.interception.ruleset import Chains
from pilot_agent.interception.run import wanted_chains
from tests.support.namespaces import Namespace, missing, namespace
from tests.unit.interception.recordings import recording, recordings

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

Result = TypeVar("Result")
BACKENDS = pytest.mark.parametrize("backend", ["nft", "legacy"])
FAMILIES: tuple[Family, ...] = (4, 6)
IPTABLES = Iptables(Commands())
DOZEN = (
    "default-v4",
    "default-v6",
    "default-dual",
    "no-flags",
    "tproxy-dual",
    "tproxy-ports",
    "dns-resolvconf-dual",
    "dns-all-dual",
    "drop-invalid",
    "inbound-ports",
    "virt-interfaces-cidr",
    "kitchen-sink",
)
FOREIGN = """*nat
-A PREROUTING -p tcp -m tcp --dport 8443 -j REDIRECT --to-ports 443
-A OUTPUT -m owner --uid-owner 7 -j ACCEPT
COMMIT
*filter
:MINE - [0:0]
-A INPUT -p tcp -m tcp --dport 23 -j MINE
COMMIT
"""


@pytest.fixture
def pod() -> Iterator[Namespace]:
    with namespace("capture") as made:
        yield made


def wanted(name: str) -> dict[Family, Chains]:
    return wanted_chains(recording(name).options().capture)


def capture(where: Namespace, name: str, backend: str = "") -> int:
    """How many changes it took."""

    def go() -> int:
        intention = intend(IPTABLES, wanted(name), backend)
        carry_out(IPTABLES, intention)
        return intention.changes

    return where.call(go)


def differs(where: Namespace, name: str) -> list[str]:
    """From the wanted rules, in whatever back end they are looked for."""
    steps = where.call(lambda: intend(IPTABLES, wanted(name)).steps)
    return [str(change) for step in steps for change in step.plan.changes]


def save(where: Namespace, backend: Backend, family: Family) -> dict[str, list[str]]:
    """As the recordings have it: by table, without policies and counters; tables without rules left out."""
    tables: dict[str, list[str]] = {}
    for line in where.run(f"{binary(backend, family)}-save").splitlines():
        if line.startswith("*"):
            lines = tables.setdefault(line[1:], [])
        elif line.startswith(":") and " - " in line:
            lines.append(line.partition(" [")[0])
        elif line.startswith("-A"):
            lines.append(line.rstrip())
    return {table: lines for table, lines in tables.items() if lines}


@BACKENDS
def test_every_recording_is_what_iptables_save_says_afterwards(pod: Namespace, backend: Backend) -> None:
    """One after the other in one namespace: each is also brought about from the one before."""
    for case in recordings():
        capture(pod, case.name, backend)
        for family in FAMILIES:
            recorded = {table: lines for table, lines in case.saved[family].items() if lines}
            assert save(pod, backend, family) == recorded, case.name
        assert differs(pod, case.name) == [], case.name


def every_pair(names: Sequence[str]) -> Iterator[str]:
    """A walk that goes from each name to each other, and to itself, once: a de Bruijn sequence of order 2."""
    for position, name in enumerate(names):
        yield name
        for other in names[position + 1 :]:
            yield from (name, other)
    yield names[0]


@BACKENDS
def test_from_each_of_a_dozen_states_to_each_other(pod: Namespace, backend: Backend) -> None:
    pod.call(lambda: IPTABLES.restore(backend, 4, FOREIGN))
    walk = list(every_pair(DOZEN))
    assert set(itertools.pairwise(walk)) == {(before, after) for before in DOZEN for after in DOZEN}
    results: dict[str, dict[Family, dict[str, list[str]]]] = {}
    for before, after in zip(["", *walk], walk, strict=False):
        capture(pod, after, backend)
        found = {family: save(pod, backend, family) for family in FAMILIES}
        ordered = {family: {table: sorted(lines) for table, lines in found[family].items()} for family in FAMILIES}
        assert results.setdefault(after, ordered) == ordered, (before, after)
    assert "-A OUTPUT -m owner --uid-owner 7 -j ACCEPT" in save(pod, backend, 4)["nat"]
    assert save(pod, backend, 4)["filter"] == [":MINE -", "-A INPUT -p tcp -m tcp --dport 23 -j MINE"]


@pytest.mark.parametrize(("before", "after"), [("nft", "legacy"), ("legacy", "nft")])
def test_rules_in_the_other_back_end_go(pod: Namespace, before: Backend, after: Backend) -> None:
    capture(pod, "kitchen-sink", before)
    capture(pod, "default-dual", after)
    assert all(save(pod, before, family) == {} for family in FAMILIES)
    assert save(pod, after, 4) == recording("default-dual").saved[4]
    assert differs(pod, "default-dual") == [], "and a run that is free to choose stays with it"


def test_the_choice_of_the_back_end_does_not_flip_and_leaves_no_tables(pod: Namespace) -> None:
    for _ in range(3):
        capture(pod, "default-v4")
    assert save(pod, "nft", 4) == recording("default-v4").saved[4]
    assert save(pod, "legacy", 4) == {}
    assert "iptables-legacy tables present" not in pod.run("sh", "-c", "iptables-nft-save 2>&1")
    assert pod.run("ip6tables-nft-save") == ""


def test_rules_of_others_in_legacy_choose_it(pod: Namespace) -> None:
    pod.call(lambda: IPTABLES.restore("legacy", 4, FOREIGN))
    for _ in range(2):
        capture(pod, "default-v4")
        assert save(pod, "nft", 4) == {}
        assert not differs(pod, "default-v4")


@BACKENDS
def test_cleaning_up_leaves_others_rules_alone(pod: Namespace, backend: Backend) -> None:
    pod.call(lambda: IPTABLES.restore(backend, 4, FOREIGN))
    before = save(pod, backend, 4)
    for name in ("kitchen-sink", "tproxy-dual", "dns-all-dual"):
        capture(pod, name, backend)
        pod.call(lambda: carry_out(IPTABLES, intend(IPTABLES, {})))
        assert save(pod, backend, 4) == before
        assert save(pod, backend, 6) == {}


@BACKENDS
def test_half_a_state_becomes_the_whole_one(pod: Namespace, backend: Backend) -> None:
    command = binary(backend, 4)
    for damage in (
        ["-F", "ISTIO_INBOUND"],
        ["-D", "OUTPUT", "1"],
        ["-I", "ISTIO_OUTPUT", "1", "-p", "udp", "-j", "RETURN"],
        ["-A", "PREROUTING", "-p", "tcp", "-j", "ISTIO_INBOUND"],
        ["-N", "ISTIO_OLD"],
    ):
        capture(pod, "default-v4", backend)
        pod.run(command, "-t", "nat", *damage)
        assert differs(pod, "default-v4"), damage
        capture(pod, "default-v4", backend)
        assert save(pod, backend, 4) == recording("default-v4").saved[4], damage


# Faults


class Refusing(Commands):
    """The real commands, but for the restore of one table, which fails half done."""

    def __call__(self, argv: object, stdin: str = "", variables: object = None) -> Outcome:
        if "*raw" in stdin and "ISTIO_OUTPUT_DNS" in stdin and str(argv[0]).startswith("iptables"):  # type: ignore[index]
            stdin = stdin.replace("*raw\n", "*raw\n-A OUTPUT -j NOBODY\n")
        return super().__call__(argv, stdin, variables)  # type: ignore[arg-type]


@BACKENDS
@pytest.mark.parametrize("before", ["default-v4", "tproxy-ports", ""])
def test_a_refused_rule_leaves_every_table_as_it_was(pod: Namespace, backend: Backend, before: str) -> None:
    if before:
        capture(pod, before, backend)
    pod.call(lambda: IPTABLES.restore(backend, 4, FOREIGN))
    saved = save(pod, backend, 4)
    refusing = Iptables(Refusing())

    def go() -> None:
        carry_out(refusing, intend(refusing, wanted("dns-all-dual"), backend))

    with pytest.raises(InterceptionError) as error:
        pod.call(go)
    assert f"{binary(backend, 4)}-restore: " in str(error.value)
    assert "NOBODY" in str(error.value)
    assert "\n" not in str(error.value)
    assert save(pod, backend, 4) == saved
    assert save(pod, backend, 6) == {}


def test_a_lock_that_somebody_holds_is_named(pod: Namespace, tmp_path: Path) -> None:
    lock = tmp_path / "xtables.lock"
    iptables = Iptables(Patient(), str(lock))
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InterceptionError, match=rf"xtables lock for more than 30 s: process {os.getpid()} \("):
            pod.call(lambda: carry_out(iptables, intend(iptables, wanted("default-v4"), "legacy")))


class Patient(Commands):
    """Waits for the lock for one second instead of thirty."""

    def __call__(self, argv: object, stdin: str = "", variables: object = None) -> Outcome:
        words = [str(each).replace("--wait=30", "--wait=1") for each in argv]  # type: ignore[attr-defined]
        return super().__call__(words, stdin, variables)  # type: ignore[arg-type]


def test_without_rights_the_missing_one_is_named(pod: Namespace) -> None:
    command = (sys.executable, "-m", "pilot_agent.commands.main", "istio-iptables", "-b", "*")
    pod.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth9")
    pod.run("ip", "addr", "add", "10.9.0.2/24", "dev", "eth0")
    done = subprocess.run(
        [*pod.prefix, "setpriv", "--reuid", "65534", "--clear-groups", *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 1
    assert "NET_ADMIN" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_a_binary_that_is_told(pod: Namespace) -> None:
    iptables = Iptables(Commands(path="/nowhere"))
    with pytest.raises(InterceptionError, match="iptables-save was not found: it is not installed, or not in /nowhere"):
        pod.call(lambda: intend(iptables, wanted("default-v4")))


# Nothing is lost on the way


def test_established_and_new_connections_survive_every_change(pod: Namespace) -> None:
    """A client and a server on lo, uncaptured by uid, while rules come, change and go."""
    script = """
import socket, sys, threading, time
server = socket.create_server(("127.0.0.1", 0))
def serve():
    while True:
        connection, _ = server.accept()
        threading.Thread(target=echo, args=(connection,), daemon=True).start()
def echo(connection):
    while data := connection.recv(64):
        connection.sendall(data)
threading.Thread(target=serve, daemon=True).start()
kept = socket.create_connection(server.getsockname(), timeout=2)
print("ready", flush=True)
count = 0
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
while not stop.is_set():
    for connection in (kept, socket.create_connection(server.getsockname(), timeout=2)):
        connection.settimeout(2)
        connection.sendall(b"x")
        assert connection.recv(64) == b"x"
        if connection is not kept:
            connection.close()
        count += 1
print(count, flush=True)
"""
    client = subprocess.Popen(
        [*pod.prefix, sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == "ready\n"
        for name in DOZEN * 2:
            capture(pod, name, "nft")
    finally:
        output, errors = client.communicate("")
    assert client.returncode == 0, errors
    assert int(output) > 100


def test_tables_of_a_clean_namespace_have_nothing_of_ours(pod: Namespace) -> None:
    reading: Callable[[], bool] = lambda: has_own(IPTABLES.read("nft", needs_ipv6=False).tables[4])  # noqa: E731
    assert not pod.call(reading)
