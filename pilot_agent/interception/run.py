"""One run of istio-iptables, as its options say: what is there, what is wanted, and the way from one to the other.

Puts the parts together: rules (`build`), iptables (`kernel`, `apply`), native nftables (`nft`), routes, validation
(`verify`), explanations (`explain`). Whoever only wants to know asks for the `outlook`; nothing is changed by it.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pilot_agent.errors import InterceptionError
from pilot_agent.interception import nft, outlook, route_plan, routes
from pilot_agent.interception.apply import FAMILIES, Intention, intend
from pilot_agent.interception.build import build, of_family
from pilot_agent.interception.canonical import canonical
from pilot_agent.interception.capture import ALL, Capture
from pilot_agent.interception.counters import CountedChain, counters
from pilot_agent.interception.execute import CommandMissing, Run
from pilot_agent.interception.explain import Tables, explain, observed, wanted
from pilot_agent.interception.explanation import Explanation, Packet
from pilot_agent.interception.kernel import Iptables, binary, choose
from pilot_agent.interception.nft_words import chain_name, listed
from pilot_agent.interception.nftables import table_name
from pilot_agent.interception.options import Options
from pilot_agent.interception.outlook import NATIVE, Outlook
from pilot_agent.interception.parse import incompatible_tables, parse_save
from pilot_agent.interception.rules import Family, Rule
from pilot_agent.interception.ruleset import Chains, chains_of, restore_text
from pilot_agent.interception.verify import Failure, verify
from pilot_agent.log import Scope


def wanted_chains(capture: Capture) -> dict[Family, Chains]:
    """By family, with the kernel's values."""
    rules = canonical(build(capture))
    return {family: chains_of(of_family(rules, family)) for family in FAMILIES if family in capture.families}


def network_namespace(text: str) -> Path | None:
    """Of a path, the name of one (`ip netns`), or the pid of a process in it; None for where we are."""
    if not text:
        return None
    if text.isdecimal():
        return Path("/proc", text, "ns", "net")
    return Path(text) if "/" in text else Path("/run/netns", text)


class Interception:
    """Of one network namespace, which the caller has entered."""

    def __init__(self, options: Options, run: Run, log: Scope) -> None:
        self._options, self._values, self._log, self._run = options, options.values, log, run
        self._capture = options.capture
        is_cni = self._values["cni_mode"]
        lock = str(network_namespace(self._values["network_namespace"]) or "") if is_cni else ""
        self._iptables = Iptables(run, lock)
        self._nft = nft.Nft(run, nft.ON_THE_HOST if is_cni else nft.IN_THE_IMAGE)

    def outlook(self) -> Outlook:
        """What `apply` would do. Raises InterceptionError."""
        is_native, is_cleaning = self._values["native_nftables"], self._values["cleanup_only"]
        routing = route_plan.nothing(self._capture) if is_cleaning else route_plan.wanted(self._capture)
        steps = route_plan.plan(routing, routes.read(routing))
        if is_native and not is_cleaning:
            change = self._nft.plan(build(self._capture), is_forced=self._values["force_apply"])
            return Outlook(NATIVE, self._leftovers_of_iptables(), change, steps)
        intention = self._intention({} if is_cleaning else wanted_chains(self._capture))
        return Outlook(binary(intention.backend, 4), intention, self._leftovers_of_nft(), steps)

    def _intention(self, chains: Mapping[Family, Chains]) -> Intention:
        backend = self._values["force_iptables_binary"]
        return intend(self._iptables, chains, backend, is_forced=self._values["force_apply"] and bool(chains))

    def _leftovers_of_iptables(self) -> Intention | None:
        """What an earlier run left in iptables; None where there is none."""
        try:
            return intend(self._iptables, {})
        except CommandMissing:
            return None
        except InterceptionError as error:
            self._log.warn(f"whether there are older rules in iptables can't be told: {error}")
            return None

    def _leftovers_of_nft(self) -> nft.Change | None:
        """The same of native nftables. Who has no nft has none of its tables: nobody could have made them."""
        try:
            return self._nft.plan(())
        except InterceptionError as error:
            self._log.debug(f"whether there are older rules in nftables can't be told: {error}")
            return None

    def apply(self) -> None:
        """Raises InterceptionError; then all is as before."""
        if self._values["dry_run"]:
            self._show_dry_run()
            return
        if self._values["native_nftables"]:
            self._log.info("native nftables enabled, using nft rules for traffic redirection.")
        made = self.outlook()
        if made.is_empty:
            is_cleaning = self._values["cleanup_only"]
            what = "there are no rules to take away" if is_cleaning else "the rules are as they should be"
            self._log.info(f"{what} ({made.tool}): nothing is changed")
            return
        self._say(made)
        outlook.make(made, self._iptables, self._nft)
        self._log.info(f"{made.changes} changes made ({made.tool})")
        self._show_final_state(made)

    def _say(self, made: Outlook) -> None:
        for step in made.iptables.steps if made.iptables is not None else ():
            name = binary(step.backend, step.plan.family)
            if step.is_cleaning or (made.tool == NATIVE and step.plan.changes):
                self._log.warn(f"rules of an earlier run are in {name} and go: this run uses {made.tool}")
            self._show(f"Running {name}-restore with the following input:", step.plan.restore.splitlines())
        if made.nft is not None and made.nft.script:
            if made.tool != NATIVE:
                self._log.warn(f"nftables of an earlier run are there and go: this run uses {made.tool}")
            self._show("Running nft with the following input:", made.nft.script)
        for each in made.routes:
            self._log.info(each.text)

    def _show_final_state(self, made: Outlook) -> None:
        if made.tool == NATIVE or made.iptables is None:
            self._log.info("nftables rules programmed:")
            return
        reading = self._iptables.read(made.iptables.backend, needs_ipv6=self._capture.has_ipv6)
        for family in FAMILIES[: 1 + self._capture.has_ipv6]:
            lines = [
                line
                for table, chains in sorted(reading.tables.get(family, {}).items())
                if any(chains.values())
                for line in (f"*{table}", *(line for each in chains.values() for line in each))
            ]
            self._show(f"Final iptables state (IPv{family}):", lines)

    def _show(self, title: str, lines: Iterable[str]) -> None:
        for line in (title, *lines):
            self._log.info(line)

    # Without changing anything

    def counters(self) -> tuple[CountedChain, ...]:
        """Of every tool that has something of ours, wanted or not. Raises InterceptionError."""
        return counters(self._run)

    def native_rules(self) -> dict[tuple[str, str, str], Rule]:
        """What nft would list of the rules that these options want, by table, chain and text."""
        return {
            (table_name(rule.table).removeprefix("inet "), chain_name(rule.chain), listed(rule)): rule
            for rule in canonical(build(self._capture), is_nft=True)
        }

    def _show_dry_run(self) -> None:
        self._log.info("running iptables in dry-run mode, no rule changes will be made")
        if self._values["native_nftables"]:
            self._show("for nft -f -:", nft.dry_run(build(self._capture)))
        else:
            texts = self.restore_texts()
            for family, text in texts.items():
                self._show(f"for {binary('plain', family)}-restore --noflush:", text.splitlines())
            if self._options.dry_run_file:
                record = "".join(f"{line}\n" for line in self._dry_run_record(texts))
                self._write(Path(self._options.dry_run_file), record)
        self._log.info("skipping configuring routes due to dry run mode")

    def _write(self, path: Path, text: str) -> None:
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InterceptionError(f"DRY_RUN_FILE_PATH: {path} can't be written: {error.strerror}") from None

    def restore_texts(self) -> dict[Family, str]:
        """What Istio's own tool would give to iptables-restore."""
        rules = build(self._capture)
        return {family: restore_text(of_family(rules, family)) for family in FAMILIES[: 1 + self._capture.has_ipv6]}

    def _dry_run_record(self, texts: Mapping[Family, str]) -> Iterator[str]:
        """As Istio's tool writes it: its commands, and the lines of its input."""
        yield from ("iptables-save", "ip6tables-save")
        for text in texts.values():
            yield from text.splitlines()
        yield from ("iptables-save", *(["ip6tables-save"] if 6 in texts else []))

    # Whether it works, and why

    def verify(self) -> list[Failure]:
        uid = os.geteuid()
        if uid != 0 and str(uid) not in self._capture.uids:
            self._log.warn(f"the validation runs as uid {uid}, which is not the proxy's: run it as that, or as root")
        return verify(self._capture, self._values["iptables_probe_port"], self._values["probe_timeout"].seconds)

    def explain(self, packet: Packet, *, is_planned: bool) -> Explanation:
        """By the rules that are there, or (`is_planned`) that these options would make. Raises InterceptionError."""
        if is_planned:
            looked_up = route_plan.wanted(self._capture).lookups
            return explain(self._planned(packet.family), packet, {each.mark for each in looked_up})
        marks = {lookup.mark for lookup, _ in routes.read(route_plan.wanted(self._capture)).lookups}
        made = self.outlook()
        if made.tool == NATIVE:
            if made.changes:
                raise InterceptionError(
                    "the nftables rules that are there are not those of these flags: give the flags they were made "
                    "with, or --planned"
                )
            return explain(self._planned(packet.family), packet, marks)
        backend = choose(self._iptables, self._values["force_iptables_binary"], needs_ipv6=False).reading.backend
        text = self._iptables.said(backend, packet.family)
        return explain(observed(parse_save(text), incompatible_tables(text)), packet, marks)

    def _planned(self, family: Family) -> Tables:
        if self._values["native_nftables"]:
            return wanted(chains_of(canonical(build(self._capture), is_nft=True)), family, is_native=True)
        return wanted(wanted_chains(self._capture).get(family, {}), family)


def environment_lines(variables: Mapping[str, str]) -> list[str]:
    """What Istio's tool logs first."""
    return [f"{name}={variables.get(name, '')}" for name in LOGGED_VARIABLES]


LOGGED_VARIABLES = (
    "ENVOY_PORT",
    "INBOUND_CAPTURE_PORT",
    "ISTIO_INBOUND_INTERCEPTION_MODE",
    "ISTIO_INBOUND_TPROXY_ROUTE_TABLE",
    "ISTIO_INBOUND_PORTS",
    "ISTIO_OUTBOUND_PORTS",
    "ISTIO_LOCAL_EXCLUDE_PORTS",
    "ISTIO_EXCLUDE_INTERFACES",
    "ISTIO_SERVICE_CIDR",
    "ISTIO_SERVICE_EXCLUDE_CIDR",
    "ISTIO_META_DNS_CAPTURE",
    "INVALID_DROP",
)


def config_lines(options: Options) -> list[str]:
    """What Istio's tool logs second: the settings, under its names."""
    capture, values = options.capture, options.values
    ranges, excluded, dns = capture.ranges, capture.excluded_ranges, capture.dns
    groups = capture.groups
    servers = f"[{' '.join(dns.v4)}],[{' '.join(dns.v6)}]" if dns is not None else "[],[]"
    pairs = (
        ("PROXY_PORT", capture.outbound_port),
        ("PROXY_INBOUND_CAPTURE_PORT", capture.inbound_port),
        ("PROXY_TUNNEL_PORT", capture.tunnel_port),
        ("PROXY_UID", ",".join(capture.uids)),
        ("PROXY_GID", ",".join(capture.gids)),
        ("INBOUND_INTERCEPTION_MODE", values["istio_inbound_interception_mode"]),
        ("INBOUND_TPROXY_MARK", capture.mark),
        ("INBOUND_TPROXY_ROUTE_TABLE", capture.route_table),
        ("INBOUND_PORTS_INCLUDE", ",".join(capture.inbound_ports)),
        ("INBOUND_PORTS_EXCLUDE", ",".join(capture.excluded_inbound_ports)),
        ("OUTBOUND_OWNER_GROUPS_INCLUDE", ALL if groups.included is None else ",".join(groups.included)),
        ("OUTBOUND_OWNER_GROUPS_EXCLUDE", ",".join(groups.excluded)),
        ("OUTBOUND_IP_RANGES_INCLUDE", ALL if ranges.is_all else ",".join((*ranges.v4, *ranges.v6))),
        ("OUTBOUND_IP_RANGES_EXCLUDE", ",".join((*excluded.v4, *excluded.v6))),
        ("OUTBOUND_PORTS_INCLUDE", ",".join(capture.outbound_ports)),
        ("OUTBOUND_PORTS_EXCLUDE", ",".join(capture.excluded_outbound_ports)),
        ("KUBE_VIRT_INTERFACES", ",".join(capture.virtual_interfaces)),
        ("ENABLE_INBOUND_IPV6", capture.has_ipv6),
        ("DUAL_STACK", values["dual_stack"]),
        ("DNS_CAPTURE", dns is not None),
        ("DROP_INVALID", capture.drops_invalid),
        ("CAPTURE_ALL_DNS", dns is not None and dns.is_all),
        ("DNS_SERVERS", servers),
        ("NETWORK_NAMESPACE", values["network_namespace"]),
        ("CNI_MODE", values["cni_mode"]),
        ("EXCLUDE_INTERFACES", ",".join(capture.excluded_interfaces)),
        ("RECONCILE", values["reconcile"]),
        ("CLEANUP_ONLY", values["cleanup_only"]),
        ("FORCE_APPLY", values["force_apply"]),
        ("NATIVE_NFTABLES", values["native_nftables"]),
        ("FORCE_IPTABLES_BINARY", values["force_iptables_binary"]),
    )
    return [f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in pairs]
