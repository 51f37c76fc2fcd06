"""What is to be done about rules, routes and addresses, by what is there and what is wanted."""

import json

import pytest

from pilot_agent.interception.capture import Capture
from pilot_agent.interception.route_plan import Content, Lookup, Step, There, Wanted, nothing, plan, wanted
from tests.unit.interception.recordings import Recording, recordings

V4, V6 = Lookup(4, 1337, 133), Lookup(6, 1337, 133)
OURS, EMPTY = Content(has_ours=True), Content()
TPROXY = Wanted((V4,), told=(1337, 133))
BOTH = Wanted((V4, V6), has_passthrough=True, told=(1337, 133))
NOTHING = Wanted()


@pytest.mark.parametrize("case", recordings(), ids=lambda case: case.name)
def test_what_istio_makes_is_wanted(case: Recording) -> None:
    what = wanted(case.options().capture)
    said = {
        family: [
            f"from all fwmark {each.mark:#x} lookup {each.table}" for each in what.lookups if each.family == family
        ]
        for family in (4, 6)
    }
    assert said == {family: [each.partition(": ")[2] for each in lines] for family, lines in case.ip_rules.items()}
    assert what.has_passthrough is ("::6/128" in case.lo_v6)


def texts(what: Wanted, there: There) -> list[str]:
    return [each.text for each in plan(what, there)]


def test_an_empty_namespace_gets_all() -> None:
    assert texts(BOTH, There()) == [
        "ip -6 addr add ::6/128 dev lo",
        "ip route add local default dev lo table 133",
        "ip rule add fwmark 1337 lookup 133",
        "ip -6 route add local default dev lo table 133",
        "ip -6 rule add fwmark 1337 lookup 133",
    ]
    assert texts(NOTHING, There()) == []


def test_where_all_is_there_nothing_is_done() -> None:
    tables = {(4, 133): OURS, (6, 133): OURS}
    assert plan(BOTH, There(((V4, 32765), (V6, 32765)), tables=tables, has_passthrough=True)) == ()


def test_cleanup_takes_every_copy() -> None:
    tables = {(4, 133): OURS, (6, 133): OURS}
    there = There(((V4, 32763), (V4, 32764), (V4, 32765), (V6, 32765)), tables=tables, has_passthrough=True)
    assert texts(NOTHING, there) == [
        "ip rule del fwmark 1337 lookup 133 priority 32763",
        "ip rule del fwmark 1337 lookup 133 priority 32764",
        "ip rule del fwmark 1337 lookup 133 priority 32765",
        "ip -6 rule del fwmark 1337 lookup 133 priority 32765",
        "ip route del local default dev lo table 133",
        "ip -6 route del local default dev lo table 133",
        "ip -6 addr del ::6/128 dev lo",
    ]


def test_of_copies_the_last_stays() -> None:
    there = There(((V4, 32764), (V4, 32765)), tables={(4, 133): OURS})
    assert texts(TPROXY, there) == ["ip rule del fwmark 1337 lookup 133 priority 32764"]


CASES = {
    "another mark and table of an earlier run": (
        TPROXY,
        There(((Lookup(4, 4242, 77), 32765),), tables={(4, 77): OURS, (4, 133): EMPTY}),
        [
            "ip route add local default dev lo table 133",
            "ip rule add fwmark 1337 lookup 133",
            "ip rule del fwmark 4242 lookup 77 priority 32765",
            "ip route del local default dev lo table 77",
        ],
    ),
    "another mark, the same table": (
        TPROXY,
        There(((Lookup(4, 4242, 133), 32765),), tables={(4, 133): OURS}),
        ["ip rule add fwmark 1337 lookup 133", "ip rule del fwmark 4242 lookup 133 priority 32765"],
    ),
    "the route is gone": (
        TPROXY,
        There(((V4, 32765),), tables={(4, 133): EMPTY}),
        ["ip route add local default dev lo table 133"],
    ),
    "the rule is gone": (TPROXY, There(tables={(4, 133): OURS}), ["ip rule add fwmark 1337 lookup 133"]),
    "half of a cleanup: a rule": (
        NOTHING,
        There(((V4, 32765),), tables={(4, 133): EMPTY}),
        ["ip rule del fwmark 1337 lookup 133 priority 32765"],
    ),
    "half of a cleanup: a route": (
        NOTHING,
        There(tables={(4, 133): OURS}),
        ["ip route del local default dev lo table 133"],
    ),
    "somebody's rule to a table that is empty": (NOTHING, There(((Lookup(4, 5, 7), 100),), tables={(4, 7): EMPTY}), []),
    "somebody's rule to a table with more routes": (
        NOTHING,
        There(((Lookup(4, 5, 7), 100),), tables={(4, 7): Content(True, 1)}),
        [],
    ),
    "somebody has more in our table": (
        NOTHING,
        There(((V4, 32765),), tables={(4, 133): Content(True, 1)}),
        [],
    ),
    "somebody's other rule leads to the table": (
        NOTHING,
        There(((V4, 32765),), frozenset({(4, 133)}), {(4, 133): OURS}),
        ["ip rule del fwmark 1337 lookup 133 priority 32765"],
    ),
    "IPv6 is not captured any more": (
        TPROXY,
        There(((V4, 32765), (V6, 32765)), tables={(4, 133): OURS, (6, 133): OURS}, has_passthrough=True),
        [
            "ip -6 rule del fwmark 1337 lookup 133 priority 32765",
            "ip -6 route del local default dev lo table 133",
            "ip -6 addr del ::6/128 dev lo",
        ],
    ),
}


@pytest.mark.parametrize(("what", "there", "expected"), CASES.values(), ids=list(CASES))
def test_what_somebody_left(what: Wanted, there: There, expected: list[str]) -> None:
    assert texts(what, there) == expected


def test_steps_as_data() -> None:
    step = Step("remove", "rule", *V4, 32765)
    data = {"verb": "remove", "what": "rule", "family": 4, "mark": 1337, "table": 133, "priority": 32765}
    assert json.loads(json.dumps(step.data)) == data
    assert Step("add", "address", 6).data == {"verb": "add", "what": "address", "family": 6}


def test_a_cleanup_knows_the_settings() -> None:
    capture = Capture(is_tproxy=True, inbound_ports=("*",), mark="4242", route_table="77", has_ipv6=True)
    assert nothing(capture) == Wanted((), has_passthrough=False, told=(4242, 77))
