"""Rules, routes and addresses of TPROXY and IPv6 in a kernel: as Istio makes them, once, and taken away again."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from pilot_agent.errors import InterceptionError
from pilot_agent.interception import routes
from pilot_agent.interception.netlink import LOOPBACK_INDEX, Netlink
from pilot_agent.interception.route_plan import Content, Lookup, Step, Wanted, wanted
from tests.support.namespaces import Namespace, missing, namespace
from tests.support.tours import tour
from tests.unit.interception.recordings import Recording, recordings

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

TPROXY = Wanted((Lookup(4, 1337, 133),))
DUAL = Wanted((Lookup(4, 1337, 133), Lookup(6, 1337, 133)), has_passthrough=True)
OTHER = Wanted((Lookup(4, 0xFFFFFFFF, 1000), Lookup(6, 0xFFFFFFFF, 1000)), told=(0xFFFFFFFF, 1000))
STATES = (TPROXY, DUAL, OTHER, Wanted(has_passthrough=True), Wanted((Lookup(6, 1337, 133),)), Wanted())


class Place:
    """One namespace; what `ip` has of it is the judge."""

    def __init__(self, inside: Namespace) -> None:
        self.inside = inside

    def ip(self, *argv: str) -> str:
        return subprocess.run(
            ["ip", "-n", self.inside.name, *argv], check=True, capture_output=True, text=True, timeout=30
        ).stdout

    def rules(self, family: int) -> list[str]:
        """Without the three that every namespace has."""
        lines = self.ip(f"-{family}", "rule", "show").splitlines()
        return [" ".join(each.split()) for each in lines if not each.endswith(("lookup local", "main", "default"))]

    def routes(self, family: int) -> list[Any]:
        """Of all tables but those of the kernel."""
        found: list[dict[str, Any]] = json.loads(self.ip("-j", f"-{family}", "route", "show", "table", "all") or "[]")
        return [each for each in found if each.get("table", "main") not in ("local", "main")]

    def has_passthrough(self) -> bool:
        return "::6/128 scope global" in self.ip("-6", "addr", "show", "dev", "lo")

    def state(self) -> tuple[object, ...]:
        return (self.rules(4), self.rules(6), self.routes(4), self.routes(6), self.has_passthrough())

    def apply(self, what: Wanted) -> list[str]:
        return [each.text for each in self.inside.call(lambda: routes.apply(what))]


@pytest.fixture(scope="module")
def shared() -> Iterator[Place]:
    with namespace("routes") as made:
        yield Place(made)


@pytest.fixture
def place(shared: Place) -> Iterator[Place]:
    yield shared
    for what in (OTHER, Wanted()):
        shared.apply(what._replace(lookups=(), has_passthrough=False))
    assert shared.state() == ([], [], [], [], False)


def test_every_recording_gets_what_istio_makes(place: Place) -> None:
    for case in recordings():
        # As in Istio's namespaces: 32765, and not what is free beside an earlier one.
        place.apply(Wanted(told=wanted(case.options().capture).told))
        check(place, case)


def check(place: Place, case: Recording) -> None:
    what = wanted(case.options().capture)
    place.apply(what)
    assert {4: place.rules(4), 6: place.rules(6)} == case.ip_rules, case.name
    assert place.has_passthrough() is ("::6/128" in case.lo_v6), case.name
    for family in (4, 6):
        places = [(each["type"], each["dst"], each["dev"], each["table"]) for each in place.routes(family)]
        expected = [("local", "default", "lo", str(each.table)) for each in what.lookups if each.family == family]
        assert places == expected, case.name


def test_every_way_between_two_states_leads_there_and_a_second_run_does_nothing(place: Place) -> None:
    for before, state in tour(STATES):
        assert place.apply(state), (before, state)
        for family in (4, 6):
            own = [each for each in state.lookups if each.family == family]
            assert [each.partition(": ")[2] for each in place.rules(family)] == [
                f"from all fwmark {each.mark:#x} lookup {each.table}" for each in own
            ]
            assert [each["table"] for each in place.routes(family)] == [str(each.table) for each in own]
        assert place.has_passthrough() is state.has_passthrough
        found = place.state()
        assert place.apply(state) == []
        assert place.state() == found


def as_istio(place: Place, times: int) -> None:
    for family in ("-4", "-6"):
        for _ in range(times):
            place.ip(family, "rule", "add", "fwmark", "1337", "lookup", "133")
        place.ip(family, "route", "add", "local", "default", "dev", "lo", "table", "133")
    place.ip("addr", "add", "::6/128", "dev", "lo")


def test_what_istios_tool_leaves_is_adopted_and_its_copies_go(place: Place) -> None:
    as_istio(place, 3)
    assert place.apply(DUAL) == [
        "ip rule del fwmark 1337 lookup 133 priority 32763",
        "ip rule del fwmark 1337 lookup 133 priority 32764",
        "ip -6 rule del fwmark 1337 lookup 133 priority 32763",
        "ip -6 rule del fwmark 1337 lookup 133 priority 32764",
    ]
    assert place.rules(4) == place.rules(6) == ["32765: from all fwmark 0x539 lookup 133"]


def test_cleanup_takes_all_copies_and_nothing_of_others(place: Place) -> None:
    foreign = [
        ("rule", "fwmark 7 lookup 77"),
        ("rule", "from 10.0.0.0/8 fwmark 1337 lookup 133 priority 100"),
        ("rule", "fwmark 0x200/0xf00 lookup 2004 priority 9"),
        ("rule", "not fwmark 9 lookup 2004 priority 10"),
        ("route", "local default dev lo table 2004"),
        ("route", "blackhole 192.0.2.0/24 table 77"),
        ("route", "local default dev lo table 77"),
    ]
    for what, words in foreign:
        place.ip(what, "add", *words.split())
    before = place.state()
    as_istio(place, 2)
    assert place.apply(Wanted()) == [
        *(f"ip rule del fwmark 1337 lookup 133 priority {number}" for number in (7, 8)),
        *(f"ip -6 rule del fwmark 1337 lookup 133 priority {number}" for number in (32764, 32765)),
        "ip -6 route del local default dev lo table 133",
        "ip -6 addr del ::6/128 dev lo",
    ]
    # The route stays: somebody else's rule leads to it.
    place.ip("route", "del", "local", "default", "dev", "lo", "table", "133")
    assert place.state() == before
    for what, words in foreign:
        place.ip(what, "del", *words.split())


def test_another_default_route_in_the_table_is_told(place: Place) -> None:
    place.ip("route", "add", "default", "dev", "lo", "table", "133")
    with pytest.raises(InterceptionError, match="table 133: File exists: the table has another default route"):
        place.apply(TPROXY)
    place.ip("route", "del", "default", "dev", "lo", "table", "133")


def test_lo_must_be_up_and_speak_ipv6(shared: Place) -> None:
    with namespace("down") as made:
        place = Place(made)
        place.ip("link", "set", "lo", "down")
        with pytest.raises(InterceptionError, match="Network is down: lo is down: it must be up"):
            place.apply(STATES[4])
        place.ip("link", "set", "lo", "up")
        made.run("sysctl", "-qw", "net.ipv6.conf.lo.disable_ipv6=1")
        with pytest.raises(InterceptionError, match="Permission denied: IPv6 is off on lo"):
            place.apply(Wanted(has_passthrough=True))
        assert place.apply(TPROXY) == [
            "ip route add local default dev lo table 133",
            "ip rule add fwmark 1337 lookup 133",
        ]


def test_without_the_capability_it_says_so_and_may_read(shared: Place) -> None:
    code = (
        "from pilot_agent.interception import routes; from pilot_agent.interception.route_plan import *\n"
        "print(routes.apply(Wanted()))\nroutes.apply(Wanted((Lookup(4, 1337, 133),)))"
    )
    powerless = ("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin")
    done = subprocess.run(
        [*shared.inside.prefix, *powerless, sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout == "()\n"
    assert done.stderr.splitlines()[-1].endswith(
        "failed to configure routes: ip route add local default dev lo table 133: Operation not permitted: "
        "this takes root and the capability NET_ADMIN"
    )


def test_a_marked_packet_finds_its_way_meanwhile(place: Place) -> None:
    """Copies and marks of earlier runs come and go; the wanted mark leads to lo all the time."""
    place.apply(TPROXY)

    def watch() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as marked:
            marked.setsockopt(socket.SOL_SOCKET, 36, 1337)  # SO_MARK
            for number in range(20):
                marked.sendto(b"x", ("203.0.113.1", 9))  # there is no other route, so this fails without ours
                routes.make([Step("add", "rule", 4, 1337, 133, priority=1000 + number)])
                marked.sendto(b"x", ("203.0.113.1", 9))
                routes.apply(TPROXY)

    place.inside.call(watch)
    assert len(place.rules(4)) == 1


def test_very_many_rules_and_routes_are_read_to_the_end(shared: Place) -> None:
    with namespace("many") as made:
        many = [f"rule add fwmark {number} lookup 99 priority {number}" for number in range(1, 1001)]
        many += [f"route add local 198.18.{number % 250}.{number // 250} dev lo table 99" for number in range(1000)]
        subprocess.run(["ip", "-n", made.name, "-batch", "-"], check=True, input="\n".join(many), text=True, timeout=30)
        place = Place(made)
        there = made.call(lambda: routes.read(TPROXY))
        assert [priority for _, priority in there.lookups] == list(range(1, 1001))
        assert there.tables[4, 99] == Content(has_ours=False, others=1000)
        assert place.apply(Wanted()) == []


def test_lo_has_its_number_everywhere(shared: Place) -> None:
    assert shared.inside.call(lambda: socket.if_nametoindex("lo")) == LOOPBACK_INDEX
    shared.inside.call(lambda: Netlink().__exit__())
