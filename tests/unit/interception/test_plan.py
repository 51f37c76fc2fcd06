"""Plans: from any state that is there to the wanted one, with nothing of others touched, and nothing to do after it."""

import random
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.interception.build import build, of_family
from pilot_agent.interception.canonical import canonical
from pilot_agent.interception.plan import has_own, own_lines, plan, plan_back, shown
from pilot_agent.interception.rules import BUILT_IN_CHAINS, Family
from pilot_agent.interception.ruleset import Chains, chains_of, restore_text
from tests.unit.interception.recordings import recording, recordings
from tests.unit.interception.restored import State, restored

NAMES = [case.name for case in recordings()]
FOREIGN: State = {
    "nat": {
        "PREROUTING": ["-A PREROUTING -p tcp -m tcp --dport 8443 -j REDIRECT --to-ports 443"],
        "OUTPUT": ["-A OUTPUT -m owner --uid-owner 7 -j ACCEPT"],
        "KUBE_SVC": ["-A KUBE_SVC -j RETURN"],
    },
    "filter": {"INPUT": ["-A INPUT -p tcp -m tcp --dport 23 -j DROP"]},
    "mangle": {"OUTPUT": ["-A OUTPUT -p udp -j MARK --set-xmark 0x1/0xffffffff"]},
}


def wanted(name: str, family: Family = 4) -> Chains:
    capture = recording(name).options().capture
    if family not in capture.families:
        return {}
    return chains_of(of_family(canonical(build(capture)), family))


def ours(state: Mapping[str, Mapping[str, Sequence[str]]]) -> State:
    found = {table: own_lines(table, chains) for table, chains in state.items()}
    return {table: chains for table, chains in found.items() if chains}


def others(state: State) -> State:
    """Lines that are not ours; built-in chains that are empty are as good as not there."""
    found: State = {}
    for table, chains in state.items():
        own = own_lines(table, chains)
        for chain, lines in chains.items():
            left = [line for line in lines if line not in own.get(chain, [])]
            if not chain.startswith("ISTIO_") and (left or chain not in BUILT_IN_CHAINS):
                found.setdefault(table, {})[chain] = left
    return found


def istios(name: str, family: Family = 4) -> State:
    """The state after Istio's own restore, in the kernel's words."""
    rules = canonical(build(recording(name).options().capture))
    assert restore_text(rules)
    return restored({}, plan({}, wanted(name, family), family).restore)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("name", NAMES)
def test_from_nothing_the_result_is_what_iptables_save_was_recorded_to_say(name: str, family: Family) -> None:
    state = restored({}, plan({}, wanted(name, family), family).restore)
    recorded = recording(name).saved[family]
    for table, lines in recorded.items():
        chains = state.get(table, {})
        own = {line.removeprefix(":").removesuffix(" -") for line in lines if line.startswith(":")}
        assert {chain for chain in chains if chain.startswith("ISTIO_")} == own
        rules = [line for line in lines if not line.startswith(":")]
        assert sorted(line for each in chains.values() for line in each) == sorted(rules)
        for chain, found in chains.items():
            assert found == [line for line in rules if line.startswith(f"-A {chain} ")]
    assert not plan(state, wanted(name, family), family).changes
    assert not plan(state, wanted(name, family), family).restore


def test_any_recorded_state_becomes_any_other_and_others_rules_stay() -> None:
    made = {name: restored(FOREIGN, plan(FOREIGN, wanted(name), 4).restore) for name in NAMES}
    for before in NAMES:
        for after in NAMES:
            state = restored(made[before], plan(made[before], wanted(after), 4).restore)
            assert ours(state) == ours(made[after]), (before, after)
            assert others(state) == FOREIGN, (before, after)
            assert plan(state, wanted(after), 4).restore == ""


@pytest.mark.parametrize("name", NAMES)
def test_cleaning_up_needs_no_flags(name: str) -> None:
    state = restored(FOREIGN, plan(FOREIGN, wanted(name), 4).restore)
    assert has_own(state)
    after = restored(state, plan(state, {}, 4).restore)
    assert not has_own(after)
    assert others(after) == FOREIGN


@given(name=st.sampled_from(NAMES), seed=st.integers(0, 10**6), target=st.sampled_from(NAMES))
def test_half_a_state_is_brought_to_the_wanted_one(name: str, seed: int, target: str) -> None:
    """Rules and chains missing, twice there, or in another order."""
    state = istios(name)
    chance = random.Random(seed)
    for chains in state.values():
        for chain, lines in chains.items():
            kept = [line for line in lines if chance.random() > 0.3]
            chance.shuffle(kept)
            chains[chain] = kept + kept[: chance.randrange(2)]
    after = restored(state, plan(state, wanted(target), 4).restore)
    assert ours(after) == ours(istios(target))


@pytest.mark.parametrize("name", ["default-v4", "kitchen-sink", "tproxy-v4", "virt-interfaces"])
def test_what_was_there_can_be_brought_back_to_its_place(name: str) -> None:
    """Among others' rules, and whatever a failed run has made of it."""
    before = restored(FOREIGN, plan(FOREIGN, wanted(name), 4).restore)
    before["nat"]["PREROUTING"].append("-A PREROUTING -p udp -j ACCEPT")
    for other in ("dns-resolvconf-v4", "tproxy-v4", "no-flags"):
        now = restored(before, plan(before, wanted(other), 4).restore)
        assert restored(now, plan_back(now, before, 4).restore) == before | {
            table: {chain: before.get(table, {}).get(chain, []) for chain in chains if chain in BUILT_IN_CHAINS}
            | before.get(table, {})
            for table, chains in now.items()
        }


def test_what_could_be_anybodys_is_left_alone_without_a_chain_of_ours() -> None:
    state: State = {"nat": {"PREROUTING": ["-A PREROUTING -i eth7 -j RETURN"]}}
    assert not has_own(state)
    assert plan(state, {}, 4).restore == ""
    assert has_own({"nat": {**state["nat"], "ISTIO_REDIRECT": []}})


def test_order_counts() -> None:
    state = istios("default-v4")
    state["nat"]["ISTIO_INBOUND"].reverse()
    changed = plan(state, wanted("default-v4"), 4)
    assert {change.chain for change in changed.changes} == {"ISTIO_INBOUND"}
    assert "ISTIO_OUTPUT" not in changed.restore, "what is as it should be is not touched"


def test_changes_are_told_for_people_and_for_programs() -> None:
    state = istios("default-v4")
    del state["nat"]["ISTIO_INBOUND"][1]
    made = plan(state, wanted("default-v4"), 4)
    line = "-A ISTIO_INBOUND -p tcp -m tcp --dport 15090 -j RETURN"
    assert list(shown([made])) == ["IPv4", f"  + nat {line}"]
    assert [change.described(4) for change in made.changes] == [
        {"family": "IPv4", "kind": "add", "table": "nat", "chain": "ISTIO_INBOUND", "text": line}
    ]
