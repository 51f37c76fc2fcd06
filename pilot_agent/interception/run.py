"""One run of istio-iptables, as its options say: what is there, what is wanted, and the way from one to the other.

Puts the parts together: rules (`build`), iptables (`kernel`, `plan`, `apply`), validation (`verify`). Whoever only
wants to know calls `intention`; nothing is changed by it.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pilot_agent.interception.apply import FAMILIES, Intention, carry_out, intend
from pilot_agent.interception.build import build, of_family
from pilot_agent.interception.canonical import canonical
from pilot_agent.interception.capture import ALL, Capture
from pilot_agent.interception.execute import Run
from pilot_agent.interception.kernel import Iptables, binary
from pilot_agent.interception.options import Options
from pilot_agent.interception.plan import shown
from pilot_agent.interception.rules import Family
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
        self._options, self._log = options, log
        lock = str(network_namespace(options.values["network_namespace"]) or "") if options.values["cni_mode"] else ""
        self._iptables = Iptables(run, lock)

    def intention(self) -> Intention:
        """Raises InterceptionError."""
        values = self._options.values
        wanted = {} if values["cleanup_only"] else wanted_chains(self._options.capture)
        return intend(self._iptables, wanted, values["force_iptables_binary"], is_forced=values["force_apply"])

    def apply(self) -> None:
        """Raises InterceptionError; then the tables are as before."""
        values = self._options.values
        if values["dry_run"]:
            self._show_dry_run()
            return
        intention = self.intention()
        if not intention.steps:
            what = "there are no rules to take away" if values["cleanup_only"] else "the rules are as they should be"
            self._log.info(f"{what} ({binary(intention.backend, 4)}): nothing is changed")
            return
        self._say(intention)
        carry_out(self._iptables, intention)
        self._log.info(f"{intention.changes} changes made ({binary(intention.backend, 4)})")
        self._show_final_state(intention)

    def _say(self, intention: Intention) -> None:
        for step in intention.steps:
            name = binary(step.backend, step.plan.family)
            if step.is_cleaning:
                self._log.warn(f"rules of an earlier run are in {name} and go: this run uses {intention.backend}")
            self._show(f"Running {name}-restore with the following input:", step.plan.restore.splitlines())

    def _show_final_state(self, intention: Intention) -> None:
        reading = self._iptables.read(intention.backend, needs_ipv6=self._options.capture.has_ipv6)
        for family in FAMILIES[: 1 + self._options.capture.has_ipv6]:
            lines = [
                line
                for table, chains in sorted(reading.tables.get(family, {}).items())
                for line in (f"*{table}", *(line for each in chains.values() for line in each))
            ]
            self._show(f"Final iptables state (IPv{family}):", lines)

    def _show(self, title: str, lines: Iterable[str]) -> None:
        for line in (title, *lines):
            self._log.info(line)

    # Without changing anything

    def _show_dry_run(self) -> None:
        self._log.info("running iptables in dry-run mode, no rule changes will be made")
        texts = self.restore_texts()
        for family, text in texts.items():
            self._show(f"for {binary('plain', family)}-restore --noflush:", text.splitlines())
        if self._options.dry_run_file:
            Path(self._options.dry_run_file).write_text("\n".join(self._dry_run_record(texts)) + "\n", encoding="utf-8")
        self._log.info("skipping configuring routes due to dry run mode")

    def restore_texts(self) -> dict[Family, str]:
        """What Istio's own tool would give to iptables-restore."""
        rules = build(self._options.capture)
        return {family: restore_text(of_family(rules, family)) for family in FAMILIES if family in self._families()}

    def _families(self) -> tuple[int, ...]:
        return self._options.capture.families

    def _dry_run_record(self, texts: Mapping[Family, str]) -> Iterator[str]:
        """As Istio's tool writes it: its commands, and the lines of its input."""
        yield from ("iptables-save", "ip6tables-save")
        for text in texts.values():
            yield from text.splitlines()
        yield from ("iptables-save", *(["ip6tables-save"] if 6 in texts else []))

    # Whether it works

    def verify(self) -> list[Failure]:
        values = self._options.values
        if os.geteuid() != 0 and str(os.geteuid()) not in self._options.capture.uids:
            self._log.warn(
                f"the validation runs as uid {os.geteuid()}, which is not the proxy's: run it as that, or as root"
            )
        return verify(self._options.capture, values["iptables_probe_port"], values["probe_timeout"].seconds)


def told(intention: Intention) -> Iterator[str]:
    """For a person: what would change, or that nothing would."""
    if not intention.steps:
        yield f"nothing to change ({binary(intention.backend, 4)})"
    for step in intention.steps:
        head, *changes = shown([step.plan])
        yield f"{head}, {binary(step.backend, step.plan.family)}"
        yield from changes


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
