"""`pilot-agent ca`: makes the CA for development, issues certificates of it, shows what certificate files say.

Owns words, flags and what is printed; the CA is `identity.local_ca`. Of a key nothing is printed but where it lies.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pilot_agent.clock import SystemClock
from pilot_agent.commands.flags import log_options
from pilot_agent.commands.line import nearest
from pilot_agent.commands.parsing import Parsed
from pilot_agent.commands.status import seconds
from pilot_agent.commands.table import COMMANDS
from pilot_agent.errors import EXIT_OK, AgentError, UsageError
from pilot_agent.files.publish import publish_all
from pilot_agent.identity.certificate import stamp
from pilot_agent.identity.certificate_files import Beside, Shown, certificates_at
from pilot_agent.identity.keys import KeySpec
from pilot_agent.identity.local_ca import (
    CA_CERTIFICATE_NAME,
    CA_KEY_NAME,
    CERTIFICATE_MODE,
    KEY_MODE,
    create,
    issue,
    read_ca,
)
from pilot_agent.identity.options import CHAIN_NAME, KEY_NAME, ROOT_NAME
from pilot_agent.log import Log

TRUST_DOMAIN = "cluster.local"
CA_TTL_S = 87600 * 3600
KEY_TYPES = {
    "p256": KeySpec("ECDSA", curve="P256"),
    "p384": KeySpec("ECDSA", curve="P384"),
    "rsa2048": KeySpec("RSA", 2048),
    "rsa4096": KeySpec("RSA", 4096),
}
FLAGS_OF = {
    "init": {"directory", "trust_domain", "ttl"},
    "issue": {"directory", "trust_domain", "namespace", "service_account", "output", "ttl", "key_type"},
    "show": {"directory", "wants_json"},
}
"""Which flags an action takes, by attribute; all take the logging flags."""


def run(parsed: Parsed) -> int:
    """Raises UsageError for words and flags that do not go together, AgentError for what can't be done."""
    Log(log_options(parsed.values))
    action, *rest = parsed.words
    _check(action, rest, parsed.given)
    _ACTIONS[action](parsed, rest)
    return EXIT_OK


def _check(action: str, rest: list[str], given: frozenset[str]) -> None:
    if action not in _ACTIONS:
        hint = nearest(action, _ACTIONS) or f"; use one of {', '.join(_ACTIONS)}"
        raise UsageError(f'unknown action "{action}" for "pilot-agent ca"{hint}')
    if rest and action != "show":
        raise UsageError(f"got unexpected extra argument ({rest[0]}): {action} takes flags only")
    if rest and "directory" in given:
        raise UsageError("--directory and a PATH are two answers to what to show: give one of them")
    names = {flag.attribute: flag.name for command in COMMANDS if command.name == "ca" for flag in command.flags}
    for attribute, name in names.items():
        if attribute in given - FLAGS_OF[action]:
            takers = " and ".join(each for each, flags in FLAGS_OF.items() if attribute in flags)
            raise UsageError(f"--{name} is for {takers}, not for {action}")


# init


def _init(parsed: Parsed, _: list[str]) -> None:
    directory = Path(parsed.values["directory"])
    ttl_s = _ttl(parsed) if "ttl" in parsed.given else CA_TTL_S
    trust_domain = parsed.values["trust_domain"] if "trust_domain" in parsed.given else TRUST_DOMAIN
    facts = create(directory, trust_domain, ttl_s, SystemClock().wall(), publish_all)
    print(f"made a CA for development: {facts.spiffe_id}, valid until {stamp(facts.not_after)}")
    print(f"  {directory / CA_CERTIFICATE_NAME}  for whoever is to trust it")
    print(f"  {directory / CA_KEY_NAME}   stays here: whoever has it can be any workload")


def _ttl(parsed: Parsed) -> float:
    ttl_s = float(parsed.values["ttl"].seconds)
    if ttl_s < 1:
        raise UsageError(f"invalid value for --ttl: {parsed.values['ttl']} is no lifetime: a second is the least")
    return ttl_s


# issue


def _issue(parsed: Parsed, _: list[str]) -> None:
    values, ttl_s, now = parsed.values, _ttl(parsed), SystemClock().wall()
    ca = read_ca(Path(values["directory"]), now)
    for warning in ca.warnings:
        _warn(warning)
    trust_domain = values["trust_domain"] if "trust_domain" in parsed.given else ca.trust_domain
    issued = issue(ca, KEY_TYPES[values["key_type"]], _spiffe_id(trust_domain, values), ttl_s, now)
    directory = Path(values["output"])
    key, chain, root = (directory / name for name in (KEY_NAME, CHAIN_NAME, ROOT_NAME))
    modes = {key: KEY_MODE, chain: CERTIFICATE_MODE, root: CERTIFICATE_MODE}
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        # In this order: whoever sees the new chain finds its key.
        publish_all({key: issued.key, chain: issued.chain, root: issued.root}, modes)
    except OSError as error:
        raise AgentError(
            f"--output {directory}: {error.strerror}; give a directory whose {KEY_NAME}, {CHAIN_NAME} and {ROOT_NAME} "
            "can be written"
        ) from None
    facts = issued.facts
    if now + ttl_s > ca.facts.not_after:
        _warn(f"the certificate ends with its CA, at {stamp(facts.not_after)}, before --ttl is over")
    print(f"issued a certificate for {facts.spiffe_id} ({facts.key}), valid until {stamp(facts.not_after)}")
    for path in modes:
        print(f"  {path}")


def _spiffe_id(trust_domain: str, values: dict[str, Any]) -> str:
    """What is wrong with it as a whole is told by who signs it."""
    for flag, attribute in (("namespace", "namespace"), ("serviceAccount", "service_account")):
        if not values[attribute] or "/" in values[attribute]:
            raise UsageError(f"invalid value for --{flag}: {values[attribute]!r} is no name of Kubernetes")
    return f"spiffe://{trust_domain}/ns/{values['namespace']}/sa/{values['service_account']}"


# show


def _show(parsed: Parsed, rest: list[str]) -> None:
    now = SystemClock().wall()
    shown = certificates_at(Path(rest[0] if rest else parsed.values["directory"]))
    if parsed.values["wants_json"]:
        print(json.dumps({"certificates": [as_json(each, now) for each in shown]}, indent=2))
        return
    print("\n\n".join("\n".join(as_text(each, now)) for each in shown), flush=True)
    for each in shown:
        for warning in each.key.warnings if each.key is not None else ():
            _warn(warning)


def as_json(shown: Shown, now: float) -> dict[str, Any]:
    """Plain data, named as in /debug/certs; `key_file` and `root_file` are null where there are none."""
    facts = shown.facts
    return {
        "path": str(shown.path),
        "subject": facts.subject,
        "issuer": facts.issuer,
        "spiffe_id": facts.spiffe_id,
        "serial": facts.serial,
        "not_before": stamp(facts.not_before),
        "not_after": stamp(facts.not_after),
        "seconds_left": round(facts.not_after - now),
        "key": facts.key,
        "fingerprint": facts.fingerprint,
        "is_ca": shown.is_ca,
        "is_own_root": shown.is_own_root,
        "key_file": _beside_as_json(shown.key, "fits"),
        "root_file": _beside_as_json(shown.root, "verifies"),
    }


def _beside_as_json(beside: Beside | None, verb: str) -> dict[str, Any] | None:
    if beside is None:
        return None
    is_right = beside.problem is None
    return {"path": str(beside.path), verb: is_right, "problem": beside.problem, "warnings": list(beside.warnings)}


def as_text(shown: Shown, now: float) -> Iterator[str]:
    """A heading and a line for each fact."""
    facts = shown.facts
    kind = ("root CA" if shown.is_own_root else "CA") if shown.is_ca else "workload"
    which = f", {shown.number} of {shown.of}" if shown.of > 1 else ""
    yield f"{shown.path} ({kind}{which})"
    rows = {
        "subject": facts.subject,
        "issuer": "itself" if shown.is_own_root else facts.issuer,
        "SPIFFE ID": facts.spiffe_id,
        "serial": facts.serial,
        "not before": f"{stamp(facts.not_before)}{_until(facts.not_before, now)}",
        "not after": f"{stamp(facts.not_after)} ({_left(facts.not_after, now)})",
        "key": facts.key,
        "SHA-256": facts.fingerprint,
        "key file": _beside_as_text(shown.key, "fits"),
        "root file": _beside_as_text(shown.root, "verifies it"),
    }
    for name, value in rows.items():
        if value is not None:
            yield f"  {name:<10}  {_printable(value) or '-'}"


def _beside_as_text(beside: Beside | None, praise: str) -> str | None:
    return None if beside is None else f"{beside.path.name} {beside.problem or praise}"


def _left(not_after: float, now: float) -> str:
    return f"{seconds(not_after - now)} left" if not_after > now else f"EXPIRED {seconds(now - not_after)} ago"


def _until(not_before: float, now: float) -> str:
    return f" (NOT VALID YET: in {seconds(not_before - now)})" if not_before > now else ""


def _printable(text: str) -> str:
    """Somebody else's certificate must not steer the terminal."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def _warn(text: str) -> None:
    print(f"Warning: {text}", file=sys.stderr)


_ACTIONS: dict[str, Callable[[Parsed, list[str]], None]] = {"init": _init, "issue": _issue, "show": _show}
