"""Random rules for property tests: canonical ones, such as `build` might make and iptables would take."""

from hypothesis import strategies as st

from pilot_agent.interception.rules import Condition, Kind, Rule, Verdict

numbers = st.integers(0, 65535).map(str)
marks = st.integers(1, 2**32 - 1).map(str)
interfaces = st.sampled_from(["lo", "eth0", "vnet0", "net1", "eth+"])
chains = st.sampled_from(["PREROUTING", "OUTPUT", "ISTIO_INBOUND", "ISTIO_OUTPUT", "ISTIO_OUTPUT_DNS", "OTHER-chain"])
networks = st.one_of(
    st.ip_addresses(v=4).flatmap(lambda host: st.just(f"{host}/32")),
    st.ip_addresses(v=6).flatmap(lambda host: st.just(f"{host}/128")),
    st.sampled_from(["10.0.0.0/8", "127.0.0.0/8", "172.16.0.0/12", "fd00:10::/64", "::1/128", "0.0.0.0/1"]),
)


def condition(kind: Kind, values: st.SearchStrategy[str]) -> st.SearchStrategy[Condition]:
    return st.builds(Condition, st.just(kind), values, st.booleans())


def ports_or_range(draw: st.DrawFn) -> str:
    first, last = sorted(draw(st.lists(st.integers(1, 65534), min_size=2, max_size=2, unique=True)))
    return draw(st.sampled_from([str(first), f"{first}:{last}"]))


verdicts = st.one_of(
    st.sampled_from([Verdict(each) for each in ("return", "accept", "drop", "save_mark", "restore_mark")]),
    st.sampled_from([Verdict("jump", each) for each in ("ISTIO_REDIRECT", "ISTIO_TPROXY", "OTHER-chain")]),
    numbers.map(lambda port: Verdict("redirect", port)),
    marks.map(lambda mark: Verdict("set_mark", mark)),
    st.tuples(numbers, marks).map(lambda both: Verdict("tproxy", *both)),
    numbers.map(lambda zone: Verdict("zone", zone)),
)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    """With at most one condition of a kind, but for groups; in any order, and with ports only behind a protocol."""
    kinds: list[st.SearchStrategy[Condition]] = [
        condition("in", interfaces),
        condition("out", interfaces),
        condition("source", networks),
        condition("destination", networks),
        condition("uid", numbers),
        condition("state", st.sampled_from(["NEW", "INVALID", "RELATED,ESTABLISHED"])),
        condition("mark", marks),
        condition("connection_mark", marks),
    ]
    found = [draw(each) for each in kinds if draw(st.booleans())]
    found += draw(st.lists(condition("gid", numbers), max_size=3))
    if protocol := draw(st.sampled_from(["", "tcp", "udp"])):
        found.append(Condition("protocol", protocol))
        if draw(st.booleans()):
            found.append(Condition("port", ports_or_range(draw), draw(st.booleans())))
        elif draw(st.booleans()):
            found.append(Condition("ports", f"53,{ports_or_range(draw)}", draw(st.booleans())))
        # tcp and udp are one module each, with both ports behind one -m: ours never ask for both.
        elif draw(st.booleans()):
            found.append(Condition("source_port", ports_or_range(draw), draw(st.booleans())))
    table = draw(st.sampled_from(["raw", "mangle", "nat"]))
    ordered = tuple(draw(st.permutations(found)))
    return Rule(table, draw(chains), ordered, draw(verdicts), draw(st.sampled_from([None, 4, 6])))
