"""Values as the kernel has them: names of users, groups and services become numbers, host bits of a network go."""

import grp
import ipaddress
import pwd
import socket
from collections.abc import Iterable
from dataclasses import replace

from pilot_agent.interception.rules import Condition, Rule


def canonical(rules: Iterable[Rule], *, is_nft: bool = False) -> list[Rule]:
    """Raises ValueError for a name nobody knows; `options` has looked before.

    `is_nft`: as native nft has them, which keeps 0.0.0.0/0 and ::/0; iptables leaves them out (measured).
    """
    return [_rule(rule, is_nft=is_nft) for rule in rules]


def _rule(rule: Rule, *, is_nft: bool) -> Rule:
    conditions = tuple(_condition(each) for each in rule.conditions if is_nft or not _is_everywhere(each))
    verdict = rule.verdict
    if verdict.action in ("redirect", "tproxy"):
        verdict = verdict._replace(value=str(port_number(verdict.value)))
    return replace(rule, conditions=conditions, verdict=verdict)


def _is_everywhere(condition: Condition) -> bool:
    """0.0.0.0/0 and ::/0 are no condition at all."""
    return condition.kind in ("source", "destination") and condition.value.endswith("/0") and not condition.is_negated


def _condition(condition: Condition) -> Condition:
    match condition.kind:
        case "uid":
            value = str(user_id(condition.value))
        case "gid":
            value = str(group_id(condition.value))
        case "source" | "destination":
            value = network(condition.value)
        case "port" | "source_port":
            value = _ports(condition.value)
        case "ports":
            value = ",".join(map(_ports, condition.value.split(",")))
        case _:
            value = condition.value
    return condition._replace(value=value)


def network(text: str) -> str:
    """Written as the C library does, which iptables and nft both use: `::ffff:10.0.0.1`, where Python has hex digits.

    Raises ValueError.
    """
    parsed = ipaddress.ip_network(text, strict=False)
    family = socket.AF_INET if parsed.version == 4 else socket.AF_INET6
    return f"{socket.inet_ntop(family, parsed.network_address.packed)}/{parsed.prefixlen}"


def _ports(text: str) -> str:
    """A port or a range; one from a port to the same is the port."""
    return ":".join(dict.fromkeys(str(port_number(each)) for each in text.split(":")))


def user_id(text: str) -> int:
    """Raises ValueError."""
    if text.isdecimal():
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        raise ValueError(f"there is no user {text!r}") from None


def group_id(text: str) -> int:
    """Raises ValueError."""
    if text.isdecimal():
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise ValueError(f"there is no group {text!r}") from None


def port_number(text: str) -> int:
    """A number up to 65535, or the name of a service. Raises ValueError."""
    if text.isdecimal():
        if int(text) > 65535:
            raise ValueError(f"{text} is no port: it is above 65535")
        if text != str(int(text)):
            raise ValueError(f"write {int(text)}: iptables takes no port with zeros in front")
        return int(text)
    try:
        return socket.getservbyname(text)
    except OSError:
        raise ValueError(f"{text!r} is no port, and no service of that name is known") from None
