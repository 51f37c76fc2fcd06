"""What each rule of ISTIO_OUTPUT is for, in a few plain words. Only for people; `explain` knows what a rule does."""

from collections.abc import Sequence

from pilot_agent.interception.build import IN_REDIRECT, OUTPUT, OUTPUT_DNS, REDIRECT
from pilot_agent.interception.rules import Condition, Rule

_STRAIGHT = "straight on"


def purposes(rules: Sequence[Rule | None]) -> list[str]:
    """Of a whole chain, in its order: who is the proxy is told by the rules beside. None: one that is not understood.

    "" where there is nothing to say, as of every other chain.
    """
    proxies = {
        each
        for rule in rules
        if rule is not None and rule.verdict.value == IN_REDIRECT
        for each in rule.conditions
        if each.kind in ("uid", "gid")
    }
    return [_purpose(rule, proxies) if rule is not None and rule.chain == OUTPUT else "" for rule in rules]


def _purpose(rule: Rule, proxies: set[Condition]) -> str:
    owners = [each for each in rule.conditions if each.kind in ("uid", "gid")]
    match rule.verdict.action, rule.verdict.value:
        case "jump", chain if chain == IN_REDIRECT:
            return f"Envoy ({_owner(owners)}) to its own pod: back to Envoy, as inbound"
        case "jump", chain if chain == REDIRECT:
            return f"{_what(rule.conditions) or 'everything else'}: to Envoy, as outbound"
        case "jump", chain if chain == OUTPUT_DNS:
            return "DNS queries: to the agent"
        case "return", _:
            return f"{_spared(rule, owners, proxies)}: {_STRAIGHT}"
        case _:
            return ""


def _spared(rule: Rule, owners: Sequence[Condition], proxies: set[Condition]) -> str:
    kinds = {each.kind for each in rule.conditions}
    if "source" in kinds:
        return "Envoy passing inbound on to the application"
    if len(owners) > 1 or (owners and owners[0].is_negated and "out" not in kinds):
        return "of no captured group"
    if owners and owners[0].is_negated:
        return f"the application (not {_owner(owners)}) to its own pod"
    if owners and owners[0] in proxies:
        return f"Envoy itself ({_owner(owners)}) to elsewhere"
    if owners:
        return f"sent by {_owner(owners)}"
    return _what(rule.conditions) or "everything"


def _owner(owners: Sequence[Condition]) -> str:
    return ", ".join(f"{each.kind} {each.value}" for each in owners)


def _what(conditions: Sequence[Condition]) -> str:
    """By destination and port."""
    words = [f"to {each.value.removesuffix('/32').removesuffix('/128')}" for each in conditions if _is_address(each)]
    ports = [f"port {each.value}" for each in conditions if each.kind == "port"]
    return " ".join([*words, *ports])


def _is_address(condition: Condition) -> bool:
    return condition.kind == "destination" and not condition.is_negated
