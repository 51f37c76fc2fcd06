"""The chains of `counters` as they are shown: lines in the manner of `iptables -L -v -n --line-numbers`, and JSON."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pilot_agent.interception.counters import NATIVE, CountedChain, CountedRule, Way
from pilot_agent.interception.parse import Count, Unknown, parse_rule
from pilot_agent.interception.purposes import purposes
from pilot_agent.interception.rules import FULL_MASK, Condition, Kind, Rule

NativeRules = Mapping[tuple[str, str, str], Rule]
"""Table, chain and what nft lists there, and the rule that it is: those that are wanted, for nft's words are not read.
"""

_WAYS: dict[Way, str] = {
    "sent": "a packet that is sent",
    "arriving": "a packet that arrives",
    "unreached": "no rule leads here",
}
_FAMILIES = {"inet": "IPv4 and IPv6"}
_HEAD = ("num", "pkts", "bytes", "target", "prot", "in", "out", "source", "destination", "")
_NATIVE_HEAD = ("num", "pkts", "bytes", "rule")
_NUMBERS = 3
"""The first columns, which stand on the right."""


class _Shown(NamedTuple):
    """A rule with what is known of it."""

    line: CountedRule
    rule: Rule | Unknown | None
    purpose: str


def lines(chains: Sequence[CountedChain], native: NativeRules, width: int) -> Iterator[str]:
    """For a person. Purposes are told where they fit into `width`."""
    head = ""
    places: dict[tuple[str, str, str, str], str] = {}
    for chain in chains:
        title = f"{_FAMILIES.get(chain.family, chain.family)} ({chain.tool}): {_WAYS[chain.way]}"
        if title != head:
            yield from (["", title] if head else [title])
            head = title
        yield ""
        yield f"{chain.table} {chain.name}{_policy(chain)}"
        yield from _table(chain, native, width)
        places[_place(chain, chain.name)] = chain.caller
        for name in dict.fromkeys(rule.leads_to for rule in chain.rules):
            caller = places.get(_place(chain, name))
            if caller is not None:
                yield f"  {name}: above, under {caller}"


def _place(chain: CountedChain, name: str) -> tuple[str, str, str, str]:
    return chain.tool, chain.family, chain.table, name


def _policy(chain: CountedChain) -> str:
    if not chain.policy:
        return f", from {chain.caller}" if chain.caller else ""
    counted = f" {chain.counted.packets} packets, {chain.counted.bytes} bytes" if chain.counted else ""
    return f" (policy {chain.policy}{counted})"


def _table(chain: CountedChain, native: NativeRules, width: int) -> list[str]:
    shown = _shown(chain, native)
    is_native = chain.tool == NATIVE
    rows: list[tuple[str, ...]] = [_NATIVE_HEAD if is_native else _HEAD]
    for each in shown:
        told = (each.line.text,) if is_native else _columns(each.rule, each.line.text, chain.family)
        rows.append((str(each.line.number), *_counted(each.line.counted), *told))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [
        " ".join(
            text.rjust(size) if place < _NUMBERS else text.ljust(size)
            for place, (text, size) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    words = ["", *(each.purpose for each in shown)]
    fits = sum(widths) + len(widths) + 3 + max(map(len, words)) <= width
    return [f"  {row}  {word if fits else ''}".rstrip() for row, word in zip(aligned, words, strict=True)]


def _shown(chain: CountedChain, native: NativeRules) -> list[_Shown]:
    is_native = chain.tool == NATIVE
    rules = [
        native.get((chain.table, chain.name, each.text)) if is_native else parse_rule(chain.table, each.text)
        for each in chain.rules
    ]
    words = purposes([each if isinstance(each, Rule) else None for each in rules])
    return [
        _Shown(line, rule, word if line.is_ours else "not Istio's")
        for line, rule, word in zip(chain.rules, rules, words, strict=True)
    ]


def _counted(count: Count | None) -> tuple[str, str]:
    return (str(count.packets), str(count.bytes)) if count is not None else ("-", "-")


# A rule in columns

_ANYWHERE = {"IPv4": "0.0.0.0/0", "IPv6": "::/0"}
_TARGETS = {"set_mark": "MARK", "save_mark": "CONNMARK", "restore_mark": "CONNMARK", "zone": "CT"}
_MATCHES: dict[Kind, str] = {
    "source_port": "{protocol} spt:{value}",
    "port": "{protocol} dpt:{value}",
    "ports": "multiport dports {value}",
    "uid": "owner UID {value}",
    "gid": "owner GID {value}",
    "state": "ctstate {value}",
    "mark": "mark {value}",
    "connection_mark": "connmark {value}",
}


def _columns(rule: Rule | Unknown | None, text: str, family: str) -> tuple[str, ...]:
    """Target, protocol, both interfaces, both addresses, and the rest: of a foreign rule all of it, as it is saved."""
    conditions = rule.conditions if rule is not None else ()
    told = {each.kind: _value(each) for each in conditions}
    anywhere = _ANYWHERE[family]
    if isinstance(rule, Rule):
        target, rest = _target(rule), _rest(rule, told.get("protocol", ""))
    else:
        target, rest = rule.target if rule is not None else "", text
    return (
        target,
        told.get("protocol", "all"),
        told.get("in", "*"),
        told.get("out", "*"),
        told.get("source", anywhere),
        told.get("destination", anywhere),
        rest,
    )


def _value(condition: Condition) -> str:
    value = condition.value
    if condition.kind in ("source", "destination"):
        value = value.removesuffix("/128" if ":" in value else "/32")
    elif condition.kind in ("mark", "connection_mark"):
        value = hex(int(value))
    return f"!{value}" if condition.is_negated else value


def _target(rule: Rule) -> str:
    action, value, _ = rule.verdict
    return value if action == "jump" else _TARGETS.get(action, action.upper())


def _rest(rule: Rule, protocol: str) -> str:
    words = [
        _MATCHES[each.kind].format(protocol=protocol, value=_value(each))
        for each in rule.conditions
        if each.kind in _MATCHES
    ]
    return " ".join([*words, *_done(rule)])


def _done(rule: Rule) -> list[str]:
    action, value, mark = rule.verdict
    match action:
        case "redirect":
            return [f"redir ports {value}"]
        case "set_mark":
            return [f"set {hex(int(value))}"]
        case "save_mark" | "restore_mark":
            return [action.removesuffix("_mark")]
        case "tproxy":
            return [f"port {value} mark {hex(int(mark))}/{FULL_MASK}"]
        case "zone":
            return [f"zone {value}"]
        case _:
            return []


# As JSON


def data(chains: Sequence[CountedChain], native: NativeRules) -> list[dict[str, Any]]:
    """A list of chains; `packets` and `bytes` are null where nothing counts."""
    return [
        {
            "tool": chain.tool,
            "family": chain.family,
            "way": chain.way,
            "table": chain.table,
            "chain": chain.name,
            "from": chain.caller,
            "policy": chain.policy,
            **_numbers(chain.counted),
            "rules": [_rule_data(each) for each in _shown(chain, native)],
        }
        for chain in chains
    ]


def _rule_data(shown: _Shown) -> dict[str, Any]:
    line = shown.line
    return {
        "number": line.number,
        **_numbers(line.counted),
        "rule": line.text,
        "leadsTo": line.leads_to,
        "isOurs": line.is_ours,
        "purpose": shown.purpose,
    }


def _numbers(count: Count | None) -> dict[str, int | None]:
    return {"packets": count.packets, "bytes": count.bytes} if count else {"packets": None, "bytes": None}
