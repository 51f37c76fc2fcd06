"""`pilot-agent istio-iptables`: captures traffic; says what would change, whether it matches, where a packet goes.

Owns words, flags and what is printed; the work is `interception.run`.
"""

import json
import os
from collections.abc import Sequence
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
from pilot_agent.interception.execute import Commands, inside
from pilot_agent.interception.options import Machine, Options, work_out
from pilot_agent.interception.run import Interception, config_lines, environment_lines, network_namespace, told
from pilot_agent.log import Log, Scope

ACTIONS = ("plan", "status", "explain")
RESOLV_CONF = Path("/etc/resolv.conf")
HIGHEST_PORT = 65535
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
            for warning in options.warnings:
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
        _show(interception, wants_json=parsed.values["wants_json"])
        return EXIT_OK
    if action == "status":
        return EXIT_DIFFERS if _show(interception, wants_json=parsed.values["wants_json"]) else EXIT_OK
    if action == "explain":
        raise UsageError("explain is not in this version yet")
    return _run(interception, options, log)


def _show(interception: Interception, *, wants_json: bool) -> int:
    """How many changes there would be."""
    intention = interception.intention()
    if wants_json:
        print(json.dumps(intention.described(), indent=2))
    else:
        for line in told(intention):
            print(line)
    return intention.changes


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
