"""The native nftables back end with the real nft: Istio's recordings, ways between states, and traffic meanwhile."""

import json
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any, TypeVar

import pytest

from pilot_agent.errors import InterceptionError
from pilot_agent.interception.build import build
from pilot_agent.interception.execute import Commands, Outcome
from pilot_agent.interception.nft import Change, Nft
from pilot_agent.interception.nft_listing import LIST, foretold, parse
from pilot_agent.interception.rules import Rule
from tests.support.namespaces import Namespace, connect, missing, namespace
from tests.support.tours import tour
from tests.unit.interception.recordings import Recording, recording, recordings

Result = TypeVar("Result")

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

RUN = Commands()
HERE, THERE = "10.79.0.1", "10.79.0.2"


class Place:
    """A namespace, seen by threads that are inside."""

    def __init__(self, inside: Namespace) -> None:
        self.inside = inside
        self._nft = Nft(RUN)

    def nft(self, text: str) -> None:
        """What a person, or Istio's tool, tells nft."""
        outcome = self.inside.call(lambda: RUN(["nft", "-f", "-"], text))
        assert outcome.code == 0, outcome.complaints

    def listed(self) -> str:
        return self.inside.call(lambda: RUN(LIST)).output

    def handles(self) -> Any:
        """The ruleset with the kernel's handles, without counters: another handle is another rule."""
        text = self.inside.call(lambda: RUN(["nft", "--stateless", "--handle", "list", "ruleset"])).output
        assert "handle" in text or not text
        return text

    def apply(self, rules: Sequence[Rule]) -> Change:
        return self.inside.call(lambda: self._nft.apply(rules))

    def plan(self, rules: Sequence[Rule]) -> Change:
        return self.inside.call(lambda: self._nft.plan(rules))

    def cleanup(self) -> Change:
        return self.inside.call(self._nft.cleanup)


@pytest.fixture(scope="module")
def shared() -> Iterator[Place]:
    with namespace("nft") as made:
        yield Place(made)


@pytest.fixture
def place(shared: Place) -> Iterator[Place]:
    shared.nft("flush ruleset")
    yield shared
    shared.nft("flush ruleset")


def rules_of(case: Recording | str) -> list[Rule]:
    case = recording(case) if isinstance(case, str) else case
    return build(case.options(native_nftables=True).capture)


@pytest.mark.parametrize("case", recordings(), ids=lambda case: case.name)
def test_istios_own_tables_are_foretold_and_ours_are_the_same(place: Place, case: Recording) -> None:
    rules = rules_of(case)
    place.nft("\n".join(case.nft))
    istios = place.listed()
    assert parse(istios) == foretold(rules)
    assert place.plan(rules) == Change((), ())
    assert place.cleanup().is_made
    assert place.listed() == ""
    assert place.apply(rules).is_made
    assert place.listed() == istios


def test_values_that_no_recording_has_are_foretold_too(place: Place) -> None:
    case = recording("kitchen-sink")._replace(
        env={"ISTIO_OUTBOUND_OWNER_GROUPS": ",".join(map(str, range(164, 100, -1)))}
    )
    rules = build(
        case.options(
            native_nftables=True,
            inbound_tunnel_port="25",
            envoy_port="http",
            istio_inbound_ports="8000:8010,http,1:65535",
            istio_service_cidr="::ffff:10.0.0.0/104,10.1.2.3/25,0.0.0.0/0,::/0,::1.2.3.4/128",
            istio_exclude_interfaces="eth+,eth0.100,0eth,tcp,ip6,icmpv6,rt0,rt2,rt4,sack0,sack1,meta,net1",
            kube_virt_interfaces="eth0:1",
            proxy_uid="root,4294967294",
        ).capture
    )
    place.apply(rules)
    assert parse(place.listed()) == foretold(rules)
    assert not place.apply(rules).is_made


STATES = (
    "default-v4",
    "default-dual",
    "tproxy-dual",
    "dns-resolvconf-v4",
    "dns-all-dual",
    "dns-tproxy",
    "drop-invalid",
    "exclude-interfaces-tproxy",
    "outbound-cidrs-dual",
    "owner-groups-include",
    "virt-interfaces-cidr",
    "other-ports",
    "",
)
"""Names of recordings; "" for nothing at all."""


def test_every_way_between_two_states_leads_there(place: Place) -> None:
    wanted = {state: rules_of(state) if state else [] for state in STATES}
    nft = Nft(RUN)

    def walk() -> None:
        for before, state in tour(STATES):
            rules = wanted[state]
            assert nft.apply(rules).is_made, (before, state)
            assert nft.tables() == foretold(rules), (before, state)

    place.inside.call(walk)


@pytest.mark.parametrize("state", STATES)
def test_a_second_run_changes_nothing(place: Place, state: str) -> None:
    rules = rules_of(state) if state else []
    place.apply(rules)
    handles = place.handles()
    assert place.apply(rules) == Change((), ())
    assert place.handles() == handles


NAT, MANGLE = "inet istio-proxy-nat", "inet istio-proxy-mangle"
DAMAGES = {
    "a chain flushed": (f"flush chain {NAT} istio-inbound", 5),
    "a table deleted": (f"delete table {MANGLE}", ["table inet istio-proxy-mangle is missing"]),
    "a chain deleted": (
        f"flush chain {NAT} output; delete chain {NAT} output",
        ["chain inet istio-proxy-nat output is missing"],
    ),
    "a rule added by hand": (
        f"insert rule {NAT} istio-output counter accept",
        ["inet istio-proxy-nat istio-output: rule 1 should not be there: counter accept"],
    ),
    "a rule in front of another": (
        f"flush chain {NAT} output; add rule {NAT} output counter return; "
        f"add rule {NAT} output counter jump istio-output",
        ["inet istio-proxy-nat output: rule 1 should not be there: counter return"],
    ),
    "a policy": (f"chain {NAT} output {{ policy drop; }}", 1),
    "another hook": (
        f"flush chain {NAT} output; delete chain {NAT} output; "
        f"add chain {NAT} output {{ type nat hook output priority 5; }}; "
        f"add rule {NAT} output counter jump istio-output",
        1,
    ),
    "dormant": (
        f"add table {NAT} {{ flags dormant; }}",
        ["inet istio-proxy-nat: should not be there: flags dormant"],
    ),
    "a set, a chain and a comment": (
        f"add set {NAT} mine {{ type ipv4_addr; elements = {{ 192.0.2.1 }}; }}; "
        f'add chain {NAT} mine {{ comment "}}"; }}',
        5,
    ),
    "another one's rules": ("\n".join(["flush ruleset", *recording("dns-tproxy").nft]), 22),
    "without counters": (
        f"flush chain {NAT} output; add rule {NAT} output jump istio-output",
        [
            "inet istio-proxy-nat output: rule 1 is missing: counter jump istio-output",
            "inet istio-proxy-nat output: rule 1 should not be there: jump istio-output",
        ],
    ),
}


def test_what_somebody_broke_is_told_and_made_right(place: Place) -> None:
    case = recording("drop-invalid")
    rules = rules_of(case)
    place.apply(rules)
    whole = parse(place.listed())
    for name, (commands, told) in DAMAGES.items():
        place.nft(commands)
        change = place.plan(rules)
        if isinstance(told, int):
            assert len(change.lines) == told, (name, change.lines)
        else:
            assert change.lines == told, name
        assert json.loads(json.dumps(change.data)) == change.data
        assert place.apply(rules).is_made
        # The order of chains in a table is that of their making, and means nothing.
        assert parse(place.listed()) == whole, name
        assert not place.apply(rules).is_made, name


def test_moved_rules_are_told_as_moved(place: Place) -> None:
    rules = rules_of("tproxy-v4")
    place.apply(rules)
    place.nft(
        f"flush chain {MANGLE} istio-divert; add rule {MANGLE} istio-divert counter accept; "
        f"add rule {MANGLE} istio-divert counter meta mark set 1337"
    )
    (difference,) = place.plan(rules).differences
    assert difference.kind == "moved"


def test_an_image_without_names_of_protocols_makes_no_difference(place: Place) -> None:
    def bare(argv: Sequence[str], stdin: str = "", variables: Mapping[str, str] | None = None) -> Outcome:
        hide = 'mount --bind /dev/null /etc/protocols; exec "$@"'
        return RUN(["unshare", "--mount", "sh", "-c", hide, "sh", *argv], stdin, variables)

    rules = rules_of("dns-tproxy")
    place.apply(rules)
    assert "meta l4proto 6 " in place.inside.call(lambda: bare(LIST)).output
    assert place.inside.call(lambda: Nft(bare).plan(rules)) == Change((), ())


FOREIGN = """
table inet firewall {
	chain input { type filter hook input priority 0; policy accept; ct state invalid counter drop; }
}
table ip istio-proxy-nat {
	chain output { type nat hook output priority -100; }
}
"""


def test_cleanup_leaves_nothing_of_ours_and_all_of_others(place: Place) -> None:
    place.nft(FOREIGN)
    foreign = place.handles()
    for name in ("dns-tproxy", "default-dual", "drop-invalid"):
        place.apply(rules_of(name))
        assert place.cleanup().is_made
        assert place.handles() == foreign
    assert not place.cleanup().is_made


def test_a_transaction_that_fails_leaves_everything_as_it_was(place: Place, shared: Place) -> None:
    place.apply(rules_of("dns-tproxy"))
    handles = place.handles()
    # Only the kernel can know of this one, and it comes last, behind deletions and new tables.
    change = place.plan(rules_of("default-v4"))
    broken = Change(change.differences, (*change.script, "add rule inet istio-proxy-nat istio-output jump nowhere"))
    with pytest.raises(InterceptionError) as caught:
        shared.inside.call(lambda: Nft(RUN).make(broken))
    assert str(caught.value) == (
        "nftables run failed: Could not process rule: No such file or directory (line 33: add rule inet "
        "istio-proxy-nat istio-output jump nowhere)"
    )
    assert place.handles() == handles


def test_without_the_capability_it_says_so(shared: Place) -> None:
    def powerless(argv: Sequence[str], stdin: str = "", variables: Mapping[str, str] | None = None) -> Outcome:
        return RUN(["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin", *argv], stdin, variables)

    with pytest.raises(InterceptionError) as caught:
        shared.inside.call(lambda: Nft(powerless).apply(rules_of("default-v4")))
    assert str(caught.value).startswith("nftables run failed: Operation not permitted")
    assert str(caught.value).endswith(": this takes root and the capability NET_ADMIN")


SWITCHES = ("default-v4", "dns-tproxy", "outbound-ports-exclude", "owner-groups-exclude", "tproxy-v4", "drop-invalid")


def test_no_connection_fails_or_escapes_while_states_change() -> None:
    """The peer answers "peer", who listens where Envoy would answers "envoy": every connection is to be captured."""
    with ExitStack() as stack:
        here, there = (stack.enter_context(namespace(role)) for role in ("pod", "peer"))
        connect(here, f"{HERE}/24", there, f"{THERE}/24")
        stack.enter_context(answering(here, "0.0.0.0", 15001, b"envoy"))
        stack.enter_context(answering(there, THERE, 8080, b"peer"))
        place = Place(here)
        place.apply(rules_of(SWITCHES[0]))
        asking = here.call(lambda: Asking((THERE, 8080)))
        stack.callback(asking.end)
        for number in range(1, 51):
            before = asking.count
            place.apply(rules_of(SWITCHES[number % len(SWITCHES)]))
            asking.wait_for_more_than(before)
        asking.end()
        assert asking.answers == {b"envoy"}
        assert asking.count > 50


@contextmanager
def answering(where: Namespace, host: str, port: int, answer: bytes) -> Iterator[None]:
    listener = where.call(lambda: socket.create_server((host, port), backlog=512))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


class Asking:
    """Connects again and again, from the namespace of the thread that made it. `answers`: all that was answered."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.answers: set[bytes] = set()
        self.count = 0
        self._target = target
        self._is_over = False
        self._more = threading.Condition()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        while not self._is_over:
            try:
                with closing(socket.create_connection(self._target, timeout=2)) as connection:
                    answer = connection.recv(16)
            except OSError as error:
                answer = repr(error).encode()
            with self._more:
                self.answers.add(answer)
                self.count += 1
                self._more.notify_all()

    def wait_for_more_than(self, count: int) -> None:
        with self._more:
            assert self._more.wait_for(lambda: self.count > count, timeout=10)

    def end(self) -> None:
        self._is_over = True
        self._thread.join()
