"""Which steps are told to whom, how rules of a client are split, and whose a leftover is by its name."""

import os
from pathlib import Path

import pytest

from pilot_agent.demo import network
from pilot_agent.demo.hops import arrived, rules, split
from pilot_agent.demo.passage import Moved, forwarded_certificate
from pilot_agent.demo.process import User
from pilot_agent.demo.story import Wishes, steps_of


def titles(wishes: Wishes) -> list[str]:
    return [step.title for step in steps_of(wishes)]


def test_the_comparison_needs_both_modes_and_namespaces() -> None:
    comparison = "REDIRECT against TPROXY"
    assert comparison in titles(Wishes(is_isolated=True))
    assert comparison not in titles(Wishes(is_isolated=True, mode="tproxy"))
    assert comparison not in titles(Wishes(is_isolated=False))


def moved(chain: str, number: int, rule: str, packets: int = 1) -> Moved:
    return Moved("nat", chain, number, rule, packets, "")


def test_the_rules_of_a_client_are_told_apart_by_whose_packet_they_counted() -> None:
    jump, own = (
        moved("OUTPUT", 1, "-j ISTIO_OUTPUT", 2),
        moved("ISTIO_OUTPUT", 4, "-m owner --uid-owner 1337 -j RETURN"),
    )
    caught, redirect = (
        moved("ISTIO_OUTPUT", 9, "-j ISTIO_REDIRECT"),
        moved("ISTIO_REDIRECT", 1, "-j REDIRECT --to-ports 15001"),
    )
    assert split([jump, own, caught, redirect]) == ([jump, caught, redirect], [own])
    assert rules([jump, own])[0].split() == "nat OUTPUT 1 -j ISTIO_OUTPUT +2".split()


def test_what_arrives_is_told_in_the_order_of_a_packet() -> None:
    found = [
        moved("ISTIO_IN_REDIRECT", 1, "-j REDIRECT"),
        moved("ISTIO_INBOUND", 5, "-j X"),
        moved("PREROUTING", 1, "-j Y"),
    ]
    assert [each.chain for each in arrived([*found, moved("OUTPUT", 1, "-j Z")])] == [
        "PREROUTING",
        "ISTIO_INBOUND",
        "ISTIO_IN_REDIRECT",
    ]


def test_a_forwarded_certificate_is_read_by_its_keys() -> None:
    seen = {"headers": {"X-Forwarded-Client-Cert": 'By=spiffe://a;Hash=12;Subject="";URI=spiffe://b'}}
    assert forwarded_certificate(seen) == {"By": "spiffe://a", "Hash": "12", "Subject": "", "URI": "spiffe://b"}
    assert forwarded_certificate({"headers": {}}) == {}


def test_only_namespaces_of_demos_that_are_gone_are_leftovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "NAMESPACES", tmp_path)
    monkeypatch.setattr(network, "ETC", tmp_path / "none")
    gone = 4_194_305  # above the highest pid there can be
    for name in (f"demo-{gone}-sleep", f"demo-{gone}x1-httpbin", f"demo-{os.getpid()}-sleep", "demo-sleep", "other"):
        (tmp_path / name).touch()
    assert network.orphaned() == [f"demo-{gone}-sleep", f"demo-{gone}x1-httpbin"]


def test_capabilities_are_handed_on_to_whoever_is_not_root() -> None:
    plain, reading = User(1337, 1337).wrapped(["a"]), User(1337, 1337, ("dac_read_search",)).wrapped(["a"])
    assert plain[-2:] == ["--bounding-set=-all", "a"]
    assert "--ambient-caps=-all,+dac_read_search" in reading
    assert not any("ambient" in word for word in User(0, 1337, ("net_admin",)).wrapped(["a"]))
