"""`pilot-agent istio-iptables`: captures traffic; says what would change, whether it matches, where a packet goes.

Owns words, flags and what is printed; the work is `interception.run`.
"""

import ipaddress
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from pilot_agent.commands.flags import log_options
from pilot_agent.commands.parsing import Parsed
from pilot_agent.errors import (
    EXIT_DIFFERS,
    EXIT_NOT_CAPTURED,
    EXIT_OK,
    AgentError,
    InterceptionError,
    UsageError,
)
from pilot_agent.interception.canonical import group_id, user_id
from pilot_agent.interception.execute import Commands, inside
from pilot_agent.interception.explanation import Packet
from pilot_agent.interception.options import Machine, Options, work_out
from pilot_agent.interception.outlook import Outlook
from pilot_agent.interception.run import Interception, config_lines, environment_lines, network_namespace
from pilot_agent.log import Log, Scope

ACTIONS = ("plan", "status", "explain")
RESOLV_CONF = Path("/etc/resolv.conf")
HIGHEST_PORT = 65535
SOURCE_PORT = 40000
WIDTH_OF_A_FILE = 240
"""Where standard output is no terminal there is room."""
NOT_CAPTURED = (
    "iptables validation failed; workload is not ready for Istio. The rules of this pod are missing or wrong: with "
    "Istio's CNI the pod was perhaps started before the plug-in was there, and must be made anew "
    "(cni.repair.deletePods=true does that)"
)


def run(parsed: Parsed) -> int:
    """Raises UsageError, InterceptionError."""
    log = Log(log_options(parsed.values)).scope()
    action = parsed.words[0] if parsed.words and parsed.words[0] in ACTIONS else ""  # other words are ignored
    _check(parsed)
    try:
        with ExitStack() as stack:
            namespace = network_namespace(_value(parsed, "network_namespace"))
            if namespace is not None:
                stack.enter_context(inside(namespace))
            options = work_out(parsed.values, parsed.given, os.environ, _machine())
            for warning in options.warnings if not options.values["cleanup_only"] else ():
                if action:
                    print(f"Warning: {warning}", file=sys.stderr)  # standard output is for the answer
                else:
                    log.warn(warning)
            return _act(action, parsed, options, log)
    except InterceptionError as error:
        log.error(str(error))
        raise


def _check(parsed: Parsed) -> None:
    for attribute in ("iptables_probe_port", "port"):
        port = parsed.values[attribute]
        if not 0 <= port <= HIGHEST_PORT:
            raise UsageError(f"invalid value for --{attribute.replace('_', '-')}: {port} is no port")


def _value(parsed: Parsed, attribute: str) -> str:
    """Before the options are worked out: in which namespace they are."""
    text: str = parsed.values[attribute]
    return text if attribute in parsed.given else os.environ.get(attribute.upper(), text)


def _machine() -> Machine:
    return Machine(_addresses(), _name_servers)


def _addresses() -> Sequence[str]:
    """Every address of every interface, up or not."""
    import socket

    import psutil

    return [
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family in (socket.AF_INET, socket.AF_INET6)
    ]


def _name_servers() -> list[str]:
    try:
        lines = RESOLV_CONF.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InterceptionError(f"failed to load {RESOLV_CONF}: {error.strerror}") from None
    words = [line.split() for line in lines]
    return [each[1] for each in words if len(each) > 1 and each[0] == "nameserver"]


def _act(action: str, parsed: Parsed, options: Options, log: Scope) -> int:
    interception = Interception(options, Commands(), log)
    if action == "plan":
        _show(interception.outlook(), wants_json=parsed.values["wants_json"])
        return EXIT_OK
    if action == "status":
        return _status(interception, wants_json=parsed.values["wants_json"])
    if action == "explain":
        return _explain(interception, parsed, options)
    return _run(interception, options, log)


def _show(outlook: Outlook, *, wants_json: bool) -> None:
    if wants_json:
        print(json.dumps(outlook.data(), indent=2))
    else:
        for line in outlook.lines():
            print(line)


def _status(interception: Interception, *, wants_json: bool) -> int:
    """Whether what is there is what is wanted, what is there with its counters, and what a run would change."""
    import shutil

    from pilot_agent.interception import counter_table

    outlook, chains, native = interception.outlook(), interception.counters(), interception.native_rules()
    if wants_json:
        print(json.dumps({**outlook.data(), "chains": counter_table.data(chains, native)}, indent=2))
    else:
        no, end = (" not", f": {outlook.changes} changes, at the end") if outlook.changes else ("", "")
        print(f"what is there is{no} what these flags want ({outlook.tool}){end}\n")
        width = shutil.get_terminal_size((WIDTH_OF_A_FILE, 0)).columns
        for line in counter_table.lines(chains, native, width) if chains else ["no rules of Istio are there"]:
            print(line)
        if outlook.changes:
            print("\na run would change:")
            _show(outlook, wants_json=False)
    return EXIT_DIFFERS if outlook.changes else EXIT_OK


def _explain(interception: Interception, parsed: Parsed, options: Options) -> int:
    explanation = interception.explain(_packet(parsed, options), is_planned=parsed.values["planned"])
    print(json.dumps(explanation.as_json(), indent=2) if parsed.values["wants_json"] else explanation.as_text())
    return EXIT_OK


def _packet(parsed: Parsed, options: Options) -> Packet:
    """What is not said is as in a pod: its own address, eth0, a user that is not the proxy's."""
    values = parsed.values
    is_sent = not values["interface"]
    destination = _address(values["destination"], "destination")
    is_own = destination.is_loopback or str(destination) in {each.partition("%")[0] for each in _addresses()}
    if is_sent:
        source = _address(values["source"] or (str(destination) if is_own else options.host_ip), "source")
        interface = values["out_interface"] or ("lo" if is_own else "eth0")
    else:
        source, interface = _address(values["source"], "source"), values["interface"]
    if source.version != destination.version:
        raise UsageError(f"--source {source} and --destination {destination} are of two families")
    uid = _owner(values["uid"], "uid", user_id) if is_sent else None
    gid = _owner(values["gid"] or values["uid"], "gid", group_id) if is_sent else None
    protocol = values["protocol"]
    return Packet(is_sent, protocol, str(source), str(destination), values["port"], SOURCE_PORT, interface, uid, gid)


def _address(text: str, flag: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if not text:
        raise UsageError(f"explain needs --{flag}")
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise UsageError(f"invalid value for --{flag}: {text!r} is no IP address") from None


def _owner(text: str, flag: str, number: Callable[[str], int]) -> int:
    try:
        return number(text or "0")
    except ValueError as error:
        raise UsageError(f"invalid value for --{flag}: {error}") from None


def _run(interception: Interception, options: Options, log: Scope) -> int:
    for line in (
        "Istio iptables environment:",
        *environment_lines(os.environ),
        "Istio config:",
        *config_lines(options),
    ):
        log.info(line)
    if not options.values["skip_rule_apply"]:
        interception.apply()
    if options.values["run_validation"]:
        log.info("Starting iptables validation. This check verifies that iptables rules are properly established.")
        failures = interception.verify()
        if failures:
            log.error(f"{NOT_CAPTURED}: {'; '.join(map(str, failures))}")
            raise NotCaptured(f"{NOT_CAPTURED}: {'; '.join(map(str, failures))}")
        log.info("Validation passed, iptables rules established")
    return EXIT_OK


class NotCaptured(AgentError):
    """The validation failed."""

    exit_code = EXIT_NOT_CAPTURED
