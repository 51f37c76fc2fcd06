"""The written forms of a rule with nft: as it is given, and as nft lists it.

Both are held by recordings of Istio's own scripts (reference iptables.md, section 12) and by the real nft.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from pilot_agent.interception.rules import Condition, Kind, Rule, Verdict

# As nft is given it

_ORDER: tuple[Kind, ...] = (
    "in",
    "out",
    "protocol",
    "source",
    "destination",
    "state",
    "mark",
    "connection_mark",
    "port",
    "source_port",
    "ports",
    "uid",
    "gid",
)
_ORDER_RAW: tuple[Kind, ...] = ("port", "source_port", "source", "destination", "uid", "gid")
_WORDS: dict[Kind, str] = {
    "in": "iifname",
    "out": "oifname",
    "state": "ct state",
    "mark": "mark",
    "connection_mark": "ct mark",
    "uid": "skuid",
    "gid": "skgid",
}
MOST_GROUPS_IN_ROW = 63
"""The kernel takes 128 expressions a rule, each comparison is two: Istio's form of 64 groups is refused (measured)."""


def written(rule: Rule) -> str:
    """The body of `add rule`: conditions, counter, verdict."""
    protocol = _protocol(rule)
    words = [f"meta l4proto {rule.nft_protocol}"] if rule.nft_protocol else []
    words += [text for each in _conditions(rule) if (text := _condition(rule, each, protocol))]
    return " ".join([*words, *_verdict(rule)])


def _conditions(rule: Rule) -> list[Condition]:
    """In nft's order. Very many groups become one condition, on a set."""
    order = _ORDER_RAW if rule.table == "raw" else _ORDER
    ordered = [each for kind in order for each in rule.conditions if each.kind == kind]
    groups = [each for each in ordered if each.kind == "gid" and each.is_negated]
    if len(groups) <= MOST_GROUPS_IN_ROW:
        return ordered
    rest = [each for each in ordered if each not in groups]
    return [*rest, Condition("gid", ",".join(each.value for each in groups), is_negated=True)]


def _protocol(rule: Rule) -> str:
    return next((each.value for each in rule.conditions if each.kind == "protocol"), rule.nft_protocol)


def _condition(rule: Rule, condition: Condition, protocol: str) -> str:
    kind, value, is_negated = condition
    no = "!= " if is_negated else ""
    match kind:
        case "protocol":
            return "" if rule.is_terse or value == "udp" else f"meta l4proto {value}"
        case "source" | "destination":
            family = "ip6" if ":" in value else "ip"
            return f"{family} {'saddr' if kind == 'source' else 'daddr'} {no}{value}"
        case "port" | "source_port":
            return f"{protocol} {'sport' if kind == 'source_port' else 'dport'} {no}{value.replace(':', '-')}"
        case "ports":
            return f"{protocol} dport {no}{_set(value.split(','))}"
        case "in" | "out":
            return f"{_WORDS[kind]} {no}{_interface(value)}"
        case "uid" | "gid":
            meta = "meta " if rule.table == "raw" else ""
            return f"{meta}{_WORDS[kind]} {no}{_set(value.split(',')) if ',' in value else value}"
        case "state":
            return f"{_WORDS[kind]} {no}{value.lower()}"
        case _:
            return f"{_WORDS[kind]} {no}{value}"


def _set(values: Iterable[str]) -> str:
    return f"{{ {', '.join(values)} }}"


def _interface(name: str) -> str:
    """`eth+` is iptables' way to say any eth, nft's is `eth*`.

    Quoted, which always is right, unless it is written like net1: Istio's script, which this is to be, never quotes.
    """
    name = name[:-1] + "*" if name.endswith("+") else name
    letters = name.rstrip("0123456789")
    is_plain = letters.isalpha() and name.isascii() and letters != name and name not in _KEYWORDS
    return name if is_plain or name == "lo" else f'"{name}"'


_KEYWORDS = frozenset("ip6 icmpv6 rt0 rt2 rt4 sack0 sack1 sack2 sack3".split())
"""Of nft's language, and written like a name of an interface."""


def _verdict(rule: Rule) -> Sequence[str]:
    action, value, mark = rule.verdict
    match action:
        case "jump":
            return ["counter", "jump", chain_name(value)]
        case "redirect":
            return ["counter", "redirect", "to", f":{value}"]
        case "set_mark":
            return ["counter", "meta", "mark", "set", value]
        case "save_mark":
            return ["counter", "ct", "mark", "set", "mark"]
        case "restore_mark":
            return ["counter", "meta", "mark", "set", "ct", "mark"]
        case "tproxy":
            family = "ip6" if rule.family == 6 else "ip"
            return ["tproxy", family, "to", f":{value}", "meta", "mark", "set", mark, "counter", "accept"]
        case "zone":
            return ["counter", "ct", "zone", "set", value]
        case _:
            return ["counter", action]


def chain_name(chain: str) -> str:
    """`ISTIO_OUTPUT_DNS` is `istio-output-dns` there, and `PREROUTING` `prerouting`."""
    return chain.lower().replace("_", "-")


# As nft lists it; of rules whose values are the kernel's (`canonical.canonical`)

_STATES = ("invalid", "established", "related", "new", "untracked")
"""In the order of their bits, which is how nft lists several."""
_PORTS = frozenset(("port", "source_port", "ports"))


def listed(rule: Rule) -> str:
    """What `nft --stateless list` says of it (held by recordings, nft 1.0.6)."""
    protocol = _protocol(rule)
    has_port = any(each.kind in _PORTS for each in rule.conditions)
    words = [f"meta l4proto {rule.nft_protocol}"] if rule.nft_protocol and not has_port else []
    # A port says what protocol it is of: nft leaves out the condition that says it again.
    told = [each for each in _conditions(rule) if each.kind != "protocol" or not has_port]
    words += [_listed_condition(rule, each, protocol) for each in told]
    return " ".join([*words, *_listed_verdict(rule)])


def _listed_condition(rule: Rule, condition: Condition, protocol: str) -> str:
    kind, value, is_negated = condition
    no = "!= " if is_negated else ""
    match kind:
        case "in" | "out":
            return f'{_WORDS[kind]} {no}"{_interface(value).strip(chr(34))}"'
        case "source" | "destination":
            host = "/128" if ":" in value else "/32"
            return _condition(rule, condition._replace(value=value.removesuffix(host)), protocol)
        case "ports":
            return f"{protocol} dport {no}{_set(_by_number(value))}"
        case "uid" | "gid":
            return f"meta {_WORDS[kind]} {no}{_set(_by_number(value)) if ',' in value else value}"
        case "state":
            states = value.lower().split(",")
            return f"ct state {no}{','.join(each for each in _STATES if each in states)}"
        case "mark":
            return f"meta mark {no}{_eight_digits(value)}"
        case "connection_mark":
            return f"ct mark {no}{_eight_digits(value)}"
        case "protocol":
            return f"meta l4proto {no}{value}"
        case _:
            return _condition(rule, condition, protocol)


def _by_number(values: str) -> list[str]:
    return sorted(set(values.split(",")), key=lambda each: int(each.partition(":")[0]))


def _listed_verdict(rule: Rule) -> Sequence[str]:
    action, value, mark = rule.verdict
    match action:
        case "set_mark":
            return ["counter", "meta", "mark", "set", _eight_digits(value)]
        case "save_mark":
            return ["counter", "ct", "mark", "set", "meta", "mark"]
        case "tproxy":
            return _verdict(replace(rule, verdict=Verdict(action, value, _eight_digits(mark))))
        case _:
            return _verdict(rule)


def _eight_digits(number: str) -> str:
    return f"0x{int(number, 0):08x}"
