"""Values as the kernel has them: names of users, groups and services become numbers, host bits of a network go."""

import grp
import ipaddress
import pwd
import socket
from collections.abc import Iterable
from dataclasses import replace

from pilot_agent.interception.rules import Condition, Rule, Verdict


def canonical(rules: Iterable[Rule]) -> list[Rule]:
    """Raises ValueError for a name nobody knows; `options` has looked before."""
    return [
        replace(rule, conditions=tuple(map(_condition, rule.conditions)), verdict=_verdict(rule.verdict))
        for rule in rules
    ]


def _verdict(verdict: Verdict) -> Verdict:
    if verdict.action in ("redirect", "tproxy"):
        return verdict._replace(value=str(port_number(verdict.value)))
    return verdict


def _condition(condition: Condition) -> Condition:
    match condition.kind:
        case "uid":
            value = str(user_id(condition.value))
        case "gid":
            value = str(group_id(condition.value))
        case "source" | "destination":
            value = network(condition.value)
        case "port" | "source_port":
            value = ":".join(str(port_number(each)) for each in condition.value.split(":"))
        case "ports":
            value = ",".join(str(port_number(each)) for each in condition.value.split(","))
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
        return int(text)
    try:
        return socket.getservbyname(text)
    except OSError:
        raise ValueError(f"{text!r} is no port, and no service of that name is known") from None
