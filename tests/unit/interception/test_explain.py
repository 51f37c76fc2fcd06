"""Where packets land, for cases that an engineer would check by hand, and how it is told."""

import json
from dataclasses import replace

import pytest

from pilot_agent.interception.build import build, of_family
from pilot_agent.interception.canonical import canonical
from pilot_agent.interception.explain import Tables, explain, observed, wanted
from pilot_agent.interception.explanation import Packet
from pilot_agent.interception.parse import parse_save
from pilot_agent.interception.rules import Family
from pilot_agent.interception.ruleset import chains_of
from tests.unit.interception.recordings import recording

FAMILIES: tuple[Family, ...] = (4, 6)
NATIVE = "native"


def both_ways(name: str, family: Family) -> list[Tables]:
    """As they are wanted, and as iptables-save said they were."""
    case = recording(name)
    if family not in case.options().capture.families:
        return [{}]
    rules = of_family(canonical(build(case.options().capture)), family)
    text = "".join(f"*{table}\n" + "\n".join(lines) + "\nCOMMIT\n" for table, lines in case.saved[family].items())
    return [wanted(chains_of(rules), family), observed(parse_save(text))]


def native(name: str, family: Family) -> Tables:
    return wanted(chains_of(canonical(build(recording(name).options().capture))), family, is_native=True)


def sent(to: str, port: int = 80, uid: int = 1000, gid: int = 1000, **more: object) -> Packet:
    """From the pod, through lo to its own addresses: 10.1.1.1, fd00::1 and those of lo."""
    is_local = to.startswith(("127.", "::")) or to in ("10.1.1.1", "fd00::1")
    source = "fd00::1" if ":" in to else "10.1.1.1"
    known = Packet(True, "tcp", source, to, port, 40000, "lo" if is_local else "eth0", uid, gid)
    return replace(known, **more)  # type: ignore[arg-type]


def query(to: str, uid: int = 1000, gid: int = 1000, **more: object) -> Packet:
    return sent(to, 53, uid, gid, protocol="udp", **more)


def arriving(port: int = 80, interface: str = "eth0", to: str = "10.1.1.1", **more: object) -> Packet:
    source = "fd00::2" if ":" in to else "10.2.2.2"
    return replace(Packet(False, "tcp", source, to, port, 40000, interface), **more)  # type: ignore[arg-type]


FAR, FAR6, OWN, OWN6 = "10.2.2.2", "fd00::2", "10.1.1.1", "fd00::1"
RESOLVER = "10.255.255.53"

CASES: list[tuple[str, str, Packet, str]] = [
    # Outbound.
    ("default-v4", "outbound 15001", sent(FAR), "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001"),
    ("default-v4", "direct", sent(FAR, uid=1337), "-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN"),
    ("default-v4", "direct", sent(FAR, gid=1337), "-A ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN"),
    ("default-v4", "direct", sent(FAR, protocol="udp"), ""),
    ("default-v4", "direct", sent(OWN), "-A ISTIO_OUTPUT -o lo -m owner ! --uid-owner 1337 -j RETURN"),
    (
        "default-v4",
        "direct",
        sent("127.0.0.1", uid=1337, gid=1337),
        "-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN",
    ),
    ("default-v4", "direct", sent(FAR6), ""),
    ("default-v6", "outbound 15001", sent(FAR6), "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001"),
    ("default-dual", "outbound 15001", sent(FAR6), "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001"),
    ("no-flags", "direct", sent(FAR), ""),
    ("other-ports", "outbound 16001", sent(FAR), "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 16001"),
    ("other-ports", "direct", sent(FAR, uid=1338), "-A ISTIO_OUTPUT -m owner --uid-owner 1338 -j RETURN"),
    # Envoy to its own pod, and from 127.0.0.6 to the application.
    ("default-v4", "inbound 15006", sent(OWN, uid=1337), "-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006"),
    ("default-v4", "direct", sent(OWN, 15008, uid=1337), "-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN"),
    (
        "default-v4",
        "direct",
        sent(OWN, uid=1337, source="127.0.0.6"),
        "-A ISTIO_OUTPUT -s 127.0.0.6/32 -o lo -j RETURN",
    ),
    (
        "default-dual",
        "inbound 15006",
        sent(OWN6, gid=1337, uid=1337),
        "-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006",
    ),
    ("default-dual", "direct", sent(OWN6, uid=1337, source="::6"), "-A ISTIO_OUTPUT -s ::6/128 -o lo -j RETURN"),
    # Inbound.
    ("default-v4", "inbound 15006", arriving(), "-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006"),
    ("default-v4", "direct", arriving(15021), "-A ISTIO_INBOUND -p tcp -m tcp --dport 15021 -j RETURN"),
    ("default-v4", "direct", arriving(15008), "-A ISTIO_INBOUND -p tcp -m tcp --dport 15008 -j RETURN"),
    ("tunnel-port", "inbound 15006", arriving(15008), "-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006"),
    ("default-v4", "direct", arriving(protocol="udp"), ""),
    ("default-dual", "inbound 15006", arriving(to=OWN6), "-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006"),
    ("default-v4", "established", arriving(state="ESTABLISHED"), ""),
    ("inbound-ports", "inbound 15006", arriving(443), "-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006"),
    ("inbound-ports", "direct", arriving(8080), ""),
    ("inbound-empty", "direct", arriving(), ""),
    # TPROXY.
    (
        "tproxy-v4",
        "inbound 15006",
        arriving(),
        "-A ISTIO_TPROXY ! -d 127.0.0.1/32 -p tcp -j TPROXY --on-port 15006 --on-ip 0.0.0.0 "
        "--tproxy-mark 0x539/0xffffffff",
    ),
    (
        "tproxy-dual",
        "inbound 15006",
        arriving(to=OWN6),
        "-A ISTIO_TPROXY ! -d ::1/128 -p tcp -j TPROXY --on-port 15006 --on-ip :: --tproxy-mark 0x539/0xffffffff",
    ),
    ("tproxy-v4", "direct", arriving(15090), "-A ISTIO_INBOUND -p tcp -m tcp --dport 15090 -j RETURN"),
    ("tproxy-v4", "outbound 15001", sent(FAR), "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001"),
    (
        "tproxy-v4",
        "inbound 15006",
        sent(OWN, uid=0, gid=1337),
        "-A ISTIO_TPROXY ! -d 127.0.0.1/32 -p tcp -j TPROXY --on-port 15006 --on-ip 0.0.0.0 "
        "--tproxy-mark 0x539/0xffffffff",
    ),
    (
        # The mistake of reference 15: with uid 1337 Envoy's connection to the application comes back to it.
        "tproxy-v4",
        "inbound 15006",
        sent(OWN, uid=1337, gid=1337, mark=1337, source=FAR),
        "-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006",
    ),
    (
        "tproxy-v4",
        "direct",
        sent(OWN, uid=0, gid=1337, mark=1337, source=FAR),
        "-A ISTIO_OUTPUT -o lo -m owner ! --uid-owner 1337 -j RETURN",
    ),
    ("tproxy-ports", "direct", arriving(8080), ""),
    ("tproxy-no-inbound", "direct", arriving(), ""),
    ("exclude-interfaces-tproxy", "direct", arriving(interface="net1"), "-A PREROUTING -i net1 -j RETURN"),
    # DNS.
    (
        "dns-resolvconf-v4",
        "dns 15053",
        query(RESOLVER),
        f"-A ISTIO_OUTPUT_DNS -d {RESOLVER}/32 -p udp -m udp --dport 53 -j REDIRECT --to-ports 15053",
    ),
    (
        "dns-resolvconf-v4",
        "dns 15053",
        sent(RESOLVER, 53),
        f"-A ISTIO_OUTPUT_DNS -d {RESOLVER}/32 -p tcp -m tcp --dport 53 -j REDIRECT --to-ports 15053",
    ),
    ("dns-resolvconf-v4", "direct", query("10.9.9.9"), ""),
    (
        "dns-resolvconf-v4",
        "outbound 15001",
        sent("10.9.9.9", 53),
        "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001",
    ),
    ("dns-resolvconf-v4", "direct", query(RESOLVER, uid=1337), "-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN"),
    ("dns-resolvconf-dual", "direct", query("fd00::53"), ""),
    (
        "dns-all-dual",
        "dns 15053",
        query("10.9.9.9"),
        "-A ISTIO_OUTPUT_DNS -p udp -m udp --dport 53 -j REDIRECT --to-ports 15053",
    ),
    (
        "dns-all-dual",
        "dns 15053",
        query("fd00::53"),
        "-A ISTIO_OUTPUT_DNS -p udp -m udp --dport 53 -j REDIRECT --to-ports 15053",
    ),
    # Even to a resolver of the pod's own, where only TCP but not to port 53 is let pass.
    (
        "dns-all-dual",
        "dns 15053",
        sent("127.0.0.1", 53),
        "-A ISTIO_OUTPUT_DNS -p tcp -m tcp --dport 53 -j REDIRECT --to-ports 15053",
    ),
    (
        "dns-all-dual",
        "dns 15053",
        query("127.0.0.1"),
        "-A ISTIO_OUTPUT_DNS -p udp -m udp --dport 53 -j REDIRECT --to-ports 15053",
    ),
    # Groups.
    ("owner-groups-exclude", "direct", sent(FAR, gid=888), "-A ISTIO_OUTPUT -m owner --gid-owner 888 -j RETURN"),
    ("owner-groups-exclude", "outbound 15001", sent(FAR), "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001"),
    (
        "owner-groups-include",
        "outbound 15001",
        sent(FAR, gid=202),
        "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001",
    ),
    (
        "owner-groups-include",
        "direct",
        sent(FAR),
        "-A ISTIO_OUTPUT -m owner ! --gid-owner 0 -m owner ! --gid-owner 202 -j RETURN",
    ),
    ("owner-groups-empty", "direct", sent(FAR), "-A ISTIO_OUTPUT -j RETURN"),
    # Ports and ranges.
    ("outbound-ports-exclude", "direct", sent(FAR, 9999), "-A ISTIO_OUTPUT -p tcp -m tcp --dport 9999 -j RETURN"),
    (
        "outbound-ports-exclude",
        "direct",
        sent(FAR, 8888, protocol="udp"),
        "-A ISTIO_OUTPUT -p udp -m udp --dport 8888 -j RETURN",
    ),
    (
        "outbound-ports-include",
        "outbound 15001",
        sent(FAR, 3306),
        "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001",
    ),
    ("outbound-ports-include", "direct", sent(FAR, 3307), ""),
    (
        "outbound-cidrs-dual",
        "outbound 15001",
        sent("172.16.9.9"),
        "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001",
    ),
    ("outbound-cidrs-dual", "direct", sent("10.1.2.3"), "-A ISTIO_OUTPUT -d 10.1.0.0/16 -j RETURN"),
    ("outbound-cidrs-dual", "direct", sent("11.1.2.3"), ""),
    (
        "outbound-cidrs-dual",
        "outbound 15001",
        sent("fd00:10::9"),
        "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001",
    ),
    ("outbound-cidrs-dual", "direct", sent("fd00:10:1::9"), "-A ISTIO_OUTPUT -d fd00:10:1::/80 -j RETURN"),
    (
        "loopback-cidr-include",
        "outbound 15001",
        sent("127.1.2.3"),
        "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001",
    ),
    # Interfaces.
    ("exclude-interfaces", "direct", sent(FAR, interface="net1"), "-A OUTPUT -o net1 -j RETURN"),
    ("exclude-interfaces", "direct", arriving(interface="net2"), "-A PREROUTING -i net2 -j RETURN"),
    (
        "exclude-interfaces",
        "inbound 15006",
        arriving(interface="net10"),
        "-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006",
    ),
    (
        "virt-interfaces",
        "outbound 15001",
        arriving(interface="vnet1", to="10.9.9.9", is_forwarded=True),
        "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001",
    ),
    (
        "virt-interfaces-cidr",
        "direct",
        arriving(interface="vnet1", to="12.9.9.9", is_forwarded=True),
        "-A PREROUTING -i vnet1 -j RETURN",
    ),
    # Invalid packets: dropped if wanted; else nat has no say in them.
    ("drop-invalid", "dropped", arriving(state="INVALID"), "-A ISTIO_DROP -j DROP"),
    ("drop-invalid", "dropped", arriving(state="INVALID", protocol="udp"), "-A ISTIO_DROP -j DROP"),
    ("drop-invalid", "inbound 15006", arriving(), "-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006"),
    ("default-v4", "direct", arriving(state="INVALID"), ""),
]


@pytest.mark.parametrize(("name", "lands", "packet", "decided"), CASES, ids=str)
def test_where_a_packet_lands(name: str, lands: str, packet: Packet, decided: str) -> None:
    for tables in both_ways(name, packet.family):
        found = explain(tables, packet, [1337])
        assert " ".join([found.lands, *([str(found.port)] if found.port else [])]) == lands, found.as_text()
        assert (found.decided.rule if found.decided else "") == decided, found.as_text()
        assert found.reaches_envoy == lands.startswith(("outbound", "inbound"))


@pytest.mark.parametrize(("name", "lands", "packet", "_decided"), CASES, ids=str)
def test_native_rules_lead_to_the_same(name: str, lands: str, packet: Packet, _decided: str) -> None:
    found = explain(native(name, packet.family), packet, [1337])
    if (packet.protocol, packet.state) == ("udp", "INVALID"):
        assert found.lands == "direct", "Istio's nftables rules drop only TCP"
    elif name == "default-v4" and packet.family == 6:
        assert found.lands == "outbound", "they are for both families, asked for or not"
    else:
        assert " ".join([found.lands, *([str(found.port)] if found.port else [])]) == lands, found.as_text()


def test_it_is_told_to_a_person() -> None:
    tables = both_ways("dns-tproxy", 4)[1]
    mark = "-A OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m owner --gid-owner 1337 -j MARK --set-xmark 0x53a/0xffffffff"
    spare = "-A ISTIO_OUTPUT -o lo -p tcp -m tcp ! --dport 53 -m owner ! --uid-owner 1337 -j RETURN"
    decided = (
        "-A ISTIO_TPROXY ! -d 127.0.0.1/32 -p tcp -j TPROXY --on-port 15006 --on-ip 0.0.0.0 "
        "--tproxy-mark 0x539/0xffffffff"
    )
    assert explain(tables, sent(OWN, uid=0, gid=1337)).as_text().splitlines() == [
        "tcp from 10.1.1.1:40000 to 10.1.1.1:80, sent by uid 0, gid 1337 through lo, NEW",
        "OUTPUT raw",
        "   on to ISTIO_OUTPUT_DNS                    -A OUTPUT -j ISTIO_OUTPUT_DNS",
        "OUTPUT mangle",
        f"   marked 1338                               {mark}",
        "OUTPUT nat",
        "   on to ISTIO_OUTPUT                        -A OUTPUT -j ISTIO_OUTPUT",
        f"   back to OUTPUT                            {spare}",
        "PREROUTING raw",
        "   on to ISTIO_INBOUND                       -A PREROUTING -j ISTIO_INBOUND",
        "PREROUTING mangle",
        "   on to ISTIO_INBOUND                       -A PREROUTING -p tcp -j ISTIO_INBOUND",
        "   on to ISTIO_TPROXY                        -A ISTIO_INBOUND -p tcp -j ISTIO_TPROXY",
        f" * to the socket on port 15006, marked 1337  {decided}",
        "It reaches Envoy as inbound, at port 15006.",
        f"Decided by rule 1 of mangle ISTIO_TPROXY: {decided}",
    ]
    assert explain(tables, arriving(protocol="udp")).as_text().splitlines()[-2:] == [
        "It goes where it was sent: no rule brings it to Envoy.",
        "No rule decided: none is about such a packet.",
    ]
    assert str(sent(FAR6, mark=5, connection_mark=6)).endswith("eth0, NEW, mark 5, connection mark 6")
    assert str(arriving(to=OWN6)) == "tcp from [fd00::2]:40000 to [fd00::1]:80, arriving on eth0, NEW"


def test_it_is_told_to_a_program() -> None:
    found = explain(both_ways("default-v4", 4)[0], arriving(15021))
    told = json.loads(json.dumps(found.as_json()))
    assert {key: told[key] for key in ("lands", "port", "reachesEnvoy", "verdict")} == {
        "lands": "direct",
        "port": None,
        "reachesEnvoy": False,
        "verdict": "goes where it was sent: no rule brings it to Envoy",
    }
    decided = {
        "table": "nat",
        "chain": "ISTIO_INBOUND",
        "number": 3,
        "rule": "-A ISTIO_INBOUND -p tcp -m tcp --dport 15021 -j RETURN",
        "action": "return",
        "does": "back to PREROUTING",
    }
    assert told["decided"] == decided
    assert told["packet"]["port"] == 15021
    [passage] = told["path"]
    assert (passage["hook"], passage["table"], passage["note"]) == ("PREROUTING", "nat", "")
    assert [step["rule"] for step in passage["steps"]] == ["-A PREROUTING -p tcp -j ISTIO_INBOUND", decided["rule"]]


def test_answers_of_the_application_are_led_back_to_envoy_by_the_mark_of_the_connection() -> None:
    tables = both_ways("tproxy-v4", 4)[1]
    answer = sent(FAR, state="ESTABLISHED", connection_mark=1337)
    found = explain(tables, answer, local_marks=[1337])
    assert found.lands == "established"
    assert [passage.hook for passage in found.path] == ["OUTPUT", "OUTPUT", "PREROUTING"], "it stays on this machine"
    assert found.path[1].note == "not asked, it decided about the connection's first packet"
    assert [passage.hook for passage in explain(tables, answer).path] == ["OUTPUT", "OUTPUT"], "without the route"


# Foreign rules


def tables_of(*lines: str, chains: str = "", policy: str = "ACCEPT", table: str = "nat") -> Tables:
    heads = [f":{name} {policy} [0:0]" for name in ("PREROUTING", "INPUT", "OUTPUT")]
    heads += [f":{name} - [0:0]" for name in chains.split()]
    return observed(parse_save("\n".join([f"*{table}", *heads, *lines, "COMMIT"])))


REDIRECT = "-A OUTPUT -p tcp -j REDIRECT --to-ports 9"


@pytest.mark.parametrize(
    ("before", "lands"),
    [
        ("", "redirected"),
        ("-A OUTPUT -m comment --comment x -j RETURN", "direct"),
        ("-A OUTPUT -j ACCEPT", "direct"),
        ("-A OUTPUT -j LOG --log-prefix x", "redirected"),
        ("-A OUTPUT -m owner --uid-owner 0-5 -j LOG", "redirected"),
        ("-A OUTPUT", "redirected"),
        ("-A OUTPUT -p udp -m socket --transparent -j DROP", "redirected"),
        ("-A OUTPUT -p tcp -m socket --transparent -j DROP", "unknown"),
        ("-A OUTPUT -m owner --uid-owner 0-5 -j RETURN", "unknown"),
        ("-A OUTPUT -p tcp -j DNAT --to-destination 10.3.3.3:5", "unknown"),
        ("-A OUTPUT -p tcp -j REJECT --reject-with tcp-reset", "dropped"),
        ("-A OUTPUT -m owner --uid-owner 0-5 -j REJECT --reject-with tcp-reset", "unknown"),
        ("-A OUTPUT -p tcp -j OTHER", "redirected"),
        ("-A OUTPUT -p tcp -j MISSING", "unknown"),
        ("-A OUTPUT -p tcp -g OTHER", "unknown"),
        ("-A OUTPUT -o eth+ -j DROP", "dropped"),
        ("-A OUTPUT ! -o eth+ -j DROP", "redirected"),
        ("-A OUTPUT -i lo -j DROP", "redirected"),
        ("-A OUTPUT ! -i lo -j DROP", "dropped"),
        ("-A OUTPUT -p tcp -m tcp --dport 70:80 -j DROP", "dropped"),
        ("-A OUTPUT -p tcp -m multiport ! --dports 70:79,81 -j DROP", "dropped"),
        ("-A OUTPUT -p tcp -m tcp --sport 1:40000 -j DROP", "dropped"),
        ("-A OUTPUT -m conntrack --ctstate RELATED,NEW -j DROP", "dropped"),
        ("-A OUTPUT -m connmark ! --mark 0x5 -j DROP", "dropped"),
        ('-A OUTPUT -m comment --comment "without an end -j LOG', "unknown"),
    ],
)
def test_a_foreign_rule_is_evaluated_or_named(before: str, lands: str) -> None:
    found = explain(tables_of(before, REDIRECT, "-A OTHER -p udp -j DROP", chains="OTHER"), sent(FAR))
    assert found.lands == lands, found.as_text()
    if lands == "unknown":
        assert found.decided is not None
        assert before in found.decided.rule
        assert "\n" not in found.decided.rule
        assert "It can't be told" in found.as_text()


def test_policies_count() -> None:
    drop = tables_of(policy="DROP", table="filter")
    for packet in (sent(FAR), sent(OWN), arriving()):
        found = explain(drop, packet)
        assert found.lands == "dropped"
        assert str(found.decided).startswith("the policy of filter")
    assert explain(drop, arriving(is_forwarded=True)).lands == "direct"
    allowed = tables_of("-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT", policy="DROP", table="filter")
    assert explain(allowed, arriving()).lands == "direct"
    assert explain(allowed, arriving(81)).lands == "dropped"


def test_what_is_redirected_has_another_destination_afterwards() -> None:
    text = "*{table}\n:INPUT ACCEPT\n:PREROUTING ACCEPT\n:OUTPUT ACCEPT\n{rules}\nCOMMIT\n"
    nat = text.format(table="nat", rules=f"{REDIRECT}\n{REDIRECT.replace('OUTPUT', 'PREROUTING')}")

    def landing(rule: str, packet: Packet) -> str:
        return explain(observed(parse_save(nat + text.format(table="filter", rules=rule))), packet).lands

    assert landing("-A INPUT -d 127.0.0.1/32 -p tcp -m tcp --dport 9 -j DROP", sent(FAR)) == "dropped"
    assert landing("-A OUTPUT -o eth0 -p tcp -m tcp --dport 9 -j DROP", sent(FAR)) == "dropped", "not yet routed anew"
    assert landing("-A INPUT -i lo -m owner --uid-owner 1000 -j DROP", sent(FAR)) == "redirected", "no owner by then"
    assert landing("-A INPUT -p tcp -m tcp --dport 9 -j DROP", arriving()) == "dropped"
    assert landing("-A INPUT -d 10.1.1.1/32 -j DROP", arriving()) == "unknown", "which address of the interface?"
    assert landing("-A INPUT -d 10.1.1.1/32 -j LOG", arriving()) == "redirected"


def test_a_chain_goes_on_behind_the_jump_when_the_other_returns() -> None:
    other = "-A OTHER -p tcp -j RETURN"
    found = explain(tables_of("-A OUTPUT -j OTHER", other, REDIRECT, chains="OTHER"), sent(FAR))
    assert found.lands == "redirected"
    assert [step.does for step in found.path[0].steps] == ["on to OTHER", "back to OUTPUT", "to port 9 of this machine"]
    policy = tables_of("-A INPUT -j RETURN", policy="DROP", table="filter")
    assert explain(policy, arriving()).lands == "dropped", "of a built-in chain the policy is next"


def test_what_tproxy_took_stays_taken_and_is_marked() -> None:
    text = "*{}\n:PREROUTING ACCEPT\n:INPUT ACCEPT\n:FORWARD {}\n{}\nCOMMIT\n"
    taken = "-A PREROUTING -p tcp -j TPROXY --on-port 8 --on-ip 0.0.0.0 --tproxy-mark 0x539/0xffffffff"
    mangle = text.format("mangle", "DROP", f"{taken}\n-A INPUT -m mark ! --mark 0x539 -j DROP")
    nat = text.format("nat", "ACCEPT", REDIRECT.replace("OUTPUT", "PREROUTING"))
    for packet in (arriving(), arriving(to="10.9.9.9", is_forwarded=True)):
        found = explain(observed(parse_save(mangle + nat)), packet)
        assert (found.lands, found.port) == ("redirected", 8), found.as_text()


def test_a_marked_packet_for_another_machine_is_not_forwarded_where_its_mark_has_a_route() -> None:
    dropping = observed(parse_save("*filter\n:INPUT ACCEPT\n:FORWARD DROP\nCOMMIT\n"))
    packet = arriving(to="10.9.9.9", is_forwarded=True, mark=1337)
    assert explain(dropping, packet, [1337]).lands == "direct"
    assert explain(dropping, packet).lands == "dropped"


def test_before_connection_tracking_nothing_is_known_of_a_connection() -> None:
    for match in ("conntrack --ctstate NEW", "connmark --mark 0x5"):
        assert explain(tables_of(f"-A OUTPUT -m {match} -j DROP", table="raw"), sent(FAR)).lands == "unknown"


def test_tables_that_iptables_save_cannot_say_are_named() -> None:
    found = explain(observed({}, ["nat"]), sent(FAR))
    assert found.lands == "unknown"
    assert "rules of table nat that were made with nft" in found.as_text()
    assert explain(observed({}, ["raw"]), arriving()).lands == "unknown"
