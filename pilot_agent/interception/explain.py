"""Which rule decides about a packet: the kernel's way through raw, mangle, nat and filter, gone rule by rule.

For rules as they are (`observed`, of a parsed iptables-save) and as they are wanted (`wanted`). What nft tables other
than iptables' and Istio's own do is not seen here. Held against the kernel by tests/netns/test_explain.py.
"""

import ipaddress
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from pilot_agent.interception.explanation import Explanation, Landing, Packet, Passage, Step
from pilot_agent.interception.parse import SavedTables, Unknown, parse_rule
from pilot_agent.interception.rules import BUILT_IN_CHAINS, Condition, Family, Rule, saved
from pilot_agent.interception.ruleset import Chains


class Chain(NamedTuple):
    rules: Sequence[Rule | Unknown]
    policy: str = "ACCEPT"


Tables = Mapping[str, Mapping[str, Chain]]
"""Of one family: table, chain."""


def observed(tables: SavedTables, incompatible: Collection[str] = ()) -> Tables:
    """What iptables-save says. `incompatible`: tables it can't say, of `parse.incompatible_tables`."""
    found = {
        table: {
            name: Chain([parse_rule(table, line) for line in chain.lines], chain.policy or "ACCEPT")
            for name, chain in chains.items()
        }
        for table, chains in tables.items()
    }
    for table in incompatible:
        text = f"rules of table {table} that were made with nft and that iptables-save can't say"
        found[table] = {chain: Chain([Unknown(table, "", text)]) for chain in BUILT_IN_CHAINS}
    return found


def wanted(chains: Chains, family: Family, *, is_native: bool = False) -> Tables:
    """Canonical rules of `ruleset.chains_of`, this family's of them.

    Of iptables' rules there are none for IPv6 unless the capture has it. `is_native`: as the nftables script has them,
    of which the rules that name no address are for both families always.
    """
    return {
        table: {
            name: Chain([_native(rule) if is_native else rule for rule in rules if rule.family in (None, family)])
            for name, rules in chains_of_table.items()
        }
        for table, chains_of_table in chains.items()
    }


def _native(rule: Rule) -> Rule:
    if not rule.nft_protocol:
        return rule
    own = Condition("protocol", rule.nft_protocol)
    return Rule(rule.table, rule.chain, (own, *rule.conditions), rule.verdict, rule.family)


def explain(tables: Tables, packet: Packet, local_marks: Collection[int] = ()) -> Explanation:
    """`tables` of the packet's family. `local_marks`: marks that `ip rule` leads to TPROXY's table, so that a packet
    with one stays on this machine."""
    walk = _Walk(tables, packet, local_marks)
    if packet.is_sent:
        walk.send()
    else:
        walk.arrive()
    return walk.explanation()


_PURPOSES: dict[str, Landing] = {
    "ISTIO_REDIRECT": "outbound",
    "ISTIO_IN_REDIRECT": "inbound",
    "ISTIO_TPROXY": "inbound",
    "ISTIO_OUTPUT_DNS": "dns",
}
_HARMLESS = {
    "",
    *"AUDIT CHECKSUM CLASSIFY DSCP ECN HL IDLETIMER LED LOG NFLOG RATEEST SET TCPMSS TEE TOS TRACE TTL ULOG".split(),
}
"""Targets after which the next rule is asked, and the packet goes where it went."""


class _Walk:
    """A packet under way: what it is by now, and what happened to it."""

    def __init__(self, tables: Tables, packet: Packet, local_marks: Collection[int]) -> None:
        self._tables = tables
        self._packet = packet
        self._local_marks = local_marks
        self._destination: str | None = packet.destination
        self._port = packet.port
        self._entering, self._leaving = "", ""
        self._uid, self._gid = packet.uid, packet.gid
        self._mark, self._connection_mark = packet.mark, packet.connection_mark
        self._table = ""
        self._path: list[Passage] = []
        self._steps: list[Step] = []
        self._taken: Step | None = None
        self._taken_to = 0
        self._end: tuple[Landing, Step] | None = None

    # The kernel's hooks. Within one, the interface is that of its beginning, whatever is changed by then.

    def send(self) -> None:
        self._leaving = self._packet.interface
        self._hook("OUTPUT", "raw", "mangle", "nat", "filter")
        is_marked_anew = self._mark != self._packet.mark and self._mark in self._local_marks
        if is_marked_anew or self._taken:
            self._leaving = "lo"
        self._hook("POSTROUTING", "mangle")
        if self._leaving == "lo":
            self._entering, self._leaving = "lo", ""
            self._uid = self._gid = None
            self._hook("PREROUTING", "raw", "mangle", "nat")
            self._hook("INPUT", "mangle", "filter")

    def arrive(self) -> None:
        self._entering = self._packet.interface
        self._hook("PREROUTING", "raw", "mangle", "nat")
        if self._packet.is_forwarded and not self._taken and self._mark not in self._local_marks:
            self._hook("FORWARD", "mangle", "filter")
            self._hook("POSTROUTING", "mangle")
        else:
            self._hook("INPUT", "mangle", "filter")

    def _hook(self, hook: str, *tables: str) -> None:
        for table in tables:
            chain = self._tables.get(table, {}).get(hook)
            if self._end or chain is None or not (chain.rules or chain.policy == "DROP"):
                continue
            self._table, self._steps = table, []
            note = self._why_not_asked(hook) if table == "nat" else ""
            if not note and not self._is_settled_in(hook, hook) and chain.policy == "DROP":
                step = self._step(hook, 0, f"policy {chain.policy}", "drop", "dropped")
                self._end = ("dropped", step)
            self._path.append(Passage(hook, table, tuple(self._steps), note))

    def _why_not_asked(self, hook: str) -> str:
        if self._packet.state == "INVALID":
            return "not asked, the packet belongs to no connection"
        if self._packet.state == "ESTABLISHED":
            return "not asked, it decided about the connection's first packet"
        return "not asked again, it was in OUTPUT" if self._packet.is_sent and hook == "PREROUTING" else ""

    # Chains

    def _is_settled_in(self, name: str, caller: str) -> bool:
        """Whether the table is done with the packet; else the chain of the jump goes on, or the policy is next."""
        chain = self._tables[self._table].get(name, Chain(()))
        for number, rule in enumerate(chain.rules, 1):
            holds = self._holds(rule)
            if holds is False:
                continue
            if isinstance(rule, Unknown):
                if self._is_settled_by_unknown(name, number, rule, holds):
                    return True
                continue
            if holds is None:
                return self._give_up(name, number, saved(rule, self._packet.family))
            if rule.verdict.action == "return":
                where = f"back to {caller}" if name != caller else f"nothing more in {self._table}"
                self._step(name, number, saved(rule, self._packet.family), "return", where)
                return False
            if self._is_settled_by(rule, number):
                return True
        return False

    def _is_settled_by(self, rule: Rule, number: int) -> bool:
        action, value, mark = rule.verdict
        step = self._step(rule.chain, number, saved(rule, self._packet.family), action, _does(rule))
        match action:
            case "jump":
                if value not in self._tables[self._table]:
                    return self._give_up(rule.chain, number, f"{step.rule} (there is no such chain)")
                return self._is_settled_in(value, rule.chain)
            case "set_mark":
                self._mark = int(value)
            case "save_mark":
                self._connection_mark = self._mark
            case "restore_mark":
                self._mark = self._connection_mark
            case "drop":
                self._end = ("dropped", step)
            case "redirect":
                self._redirect(step, int(value))
            case "tproxy":
                self._taken, self._taken_to = step, int(value)
                self._mark = int(mark)
        return action in ("accept", "drop", "redirect", "tproxy")

    def _redirect(self, step: Step, port: int) -> None:
        """A socket that TPROXY has found already is kept."""
        if self._taken is None:
            self._taken, self._taken_to = step, port
        self._port = port
        if self._packet.is_sent:
            self._destination = "127.0.0.1" if self._packet.family == 4 else "::1"
        else:
            self._destination = None  # an address of the interface, which is not known here

    def _is_settled_by_unknown(self, name: str, number: int, rule: Unknown, holds: bool | None) -> bool:
        is_readable = bool(rule.chain)
        if is_readable and rule.target in _HARMLESS:
            if holds:
                self._step(name, number, rule.text, "none", "goes on")
            return False
        if rule.target == "REJECT" and holds:
            self._end = ("dropped", self._step(name, number, rule.text, "drop", "refused"))
            return True
        return self._give_up(name, number, rule.text)

    def _give_up(self, chain: str, number: int, text: str) -> bool:
        self._end = ("unknown", self._step(chain, number, text, "unknown", "not understood"))
        return True

    def _step(self, chain: str, number: int, text: str, action: str, does: str) -> Step:
        on_one_line = text.replace("\n", "\\n")  # a comment may have more
        step = Step(self._table, chain, number, on_one_line, action, does)
        self._steps.append(step)
        return step

    # Conditions. None: it can't be told.

    def _holds(self, rule: Rule | Unknown) -> bool | None:
        answers = [self._is_met(each) for each in rule.conditions]
        if False in answers:
            return False
        is_sure = None not in answers and not (isinstance(rule, Unknown) and not rule.is_understood)
        return True if is_sure else None

    def _is_met(self, condition: Condition) -> bool | None:
        answer = self._is_plainly_met(condition)
        return answer if answer is None else answer != condition.is_negated

    def _is_plainly_met(self, condition: Condition) -> bool | None:
        value = condition.value
        match condition.kind:
            case "in":
                return _is_interface(self._entering, value)
            case "out":
                return _is_interface(self._leaving, value)
            case "source":
                return _is_within(self._packet.source, value)
            case "destination":
                return None if self._destination is None else _is_within(self._destination, value)
            case "protocol":
                return self._packet.protocol == value
            case "source_port":
                return _is_port(self._packet.source_port, value)
            case "port" | "ports":
                return any(_is_port(self._port, each) for each in value.split(","))
            case "uid":
                return str(self._uid) == value
            case "gid":
                return str(self._gid) == value
            case "mark":
                return self._mark == int(value)
        if self._table == "raw":  # before conntrack has looked
            return None
        if condition.kind == "state":
            return self._packet.state in value.split(",")
        return self._connection_mark == int(value)

    # The end

    def explanation(self) -> Explanation:
        lands, port, decided = self._landing()
        return Explanation(self._packet, tuple(self._path), lands, port, decided)

    def _landing(self) -> tuple[Landing, int | None, Step | None]:
        if self._end:
            return self._end[0], None, self._end[1]
        if self._taken:
            return _PURPOSES.get(self._taken.chain, "redirected"), self._taken_to, self._taken
        if self._packet.state == "ESTABLISHED":
            return "established", None, None
        return "direct", None, self._spared_by()

    def _spared_by(self) -> Step | None:
        """The rule that ended what could have led elsewhere; nat's before mangle's."""
        for table in ("nat", "mangle"):
            for passage in reversed(self._path):
                moves = [step for step in passage.steps if step.action in ("return", "accept", "jump")]
                if passage.table == table and moves and moves[-1].action != "jump":
                    return moves[-1]
        return None


def _does(rule: Rule) -> str:
    action, value, mark = rule.verdict
    match action:
        case "jump":
            return f"on to {value}"
        case "redirect":
            return f"to port {value} of this machine"
        case "tproxy":
            return f"to the socket on port {value}, marked {mark}"
        case "set_mark":
            return f"marked {value}"
        case "save_mark":
            return "the connection gets the packet's mark"
        case "restore_mark":
            return "the packet gets the connection's mark"
        case "zone":
            return f"conntrack zone {value}"
        case "accept":
            return f"nothing more in {rule.table}"
        case _:
            return "dropped"


def _is_interface(name: str, value: str) -> bool:
    return name.startswith(value[:-1]) if value.endswith("+") else name == value


def _is_within(address: str, network: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(network)


def _is_port(port: int, value: str) -> bool:
    first, _, last = value.partition(":")
    return int(first) <= port <= int(last or first)
