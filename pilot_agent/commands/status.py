"""`pilot-agent status`: one screen about the running agent and its Envoy, for a person; with --json for a program.

Asks the agent's own port, so it needs no shell and no curl. What the facts are is `status.debug`'s; here they are laid
out. A fact that is missing (an older agent, an Envoy that does not answer) is a dash, never an error.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pilot_agent.commands.flags import log_options
from pilot_agent.commands.http_call import Call, answer_text
from pilot_agent.commands.parsing import Parsed
from pilot_agent.errors import EXIT_OK, AgentError
from pilot_agent.log import Log

TIMEOUT_S = 10.0
LONGEST_ANSWER = 4 * 1024 * 1024
MOST_LISTENERS = 20
NOTHING = "-"


def run(parsed: Parsed) -> int:
    """Print the status. Raises AgentError when the agent can't be asked, or does not answer with one."""
    Log(log_options(parsed.values))
    url = f"http://localhost:{parsed.values['port']}/debug/status"
    text = fetch(url)
    try:
        facts = json.loads(text)
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        raise AgentError(f"GET {url}: the answer is not a status: is another program on this port?")
    print(text if parsed.values["wants_json"] else "\n".join(screen(facts)))
    return EXIT_OK


def fetch(url: str) -> str:
    with Call("GET", url).answered(TIMEOUT_S) as answer:
        text = answer_text(answer, LONGEST_ANSWER)
    if answer.status != 200:
        raise AgentError(f"GET {url}: HTTP status code {answer.status}: {text[:200]}")
    return text


def screen(facts: Mapping[str, Any]) -> Iterator[str]:
    """The lines: what matters most first, then from the agent outwards."""
    yield from _head(facts)
    yield from _section("Gates", _gates(facts))
    yield from _section("Envoy", _envoy(facts.get("envoy") or {}, facts))
    yield from _section("Listeners", _listeners(facts.get("listeners") or []))
    yield from _section("Certificates", _certificates(facts.get("certificates") or []))
    if facts.get("xds"):
        yield from _section("Istiod", _istiod(facts["xds"]))
    yield from _section("Configuration", _configuration(facts.get("config") or {}))
    yield from _section("Scrapes", _scrapes(facts.get("scrapes") or []))
    yield from _section("Last errors", ((each, "") for each in facts.get("errors") or []))


def _head(facts: Mapping[str, Any]) -> Iterator[str]:
    agent = facts.get("agent") or {}
    yield "READY" if facts.get("ready") else f"NOT READY: {facts.get('reason') or 'no reason was given'}"
    about = (agent.get("mode"), agent.get("role"), agent.get("state"), f"up {seconds(agent.get('uptime_seconds'))}")
    yield f"pilot-agent {agent.get('version', NOTHING)}: {', '.join(str(each) for each in about if each)}"
    yield f"node {agent.get('id', NOTHING)}, cluster {agent.get('cluster', NOTHING)}"


def _section(title: str, rows: Iterator[tuple[str, str]]) -> Iterator[str]:
    found = list(rows)
    yield ""
    yield title if found else f"{title}: none"
    width = max((len(name) for name, value in found if value), default=0)
    for name, value in found:
        yield f"  {name.ljust(width)}  {value}".rstrip() if value else f"  {name}"


def _gates(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for gate in facts.get("gates") or []:
        is_open = gate.get("state") == "open"
        reason = "" if is_open else f" {gate.get('reason')}"
        mark = "[+]" if is_open else "[-]"
        yield f"{mark} {gate.get('name')}", f"for {seconds(gate.get('since_seconds'))}{reason}"


def _envoy(envoy: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not envoy:
        return
    yield "binary", f"{envoy.get('binary', NOTHING)} ({envoy.get('version') or 'version unknown'})"
    threads = envoy.get("concurrency")
    yield (
        "epoch",
        f"{envoy.get('epoch')}, pid {envoy.get('pid')}, up {seconds(envoy.get('uptime_seconds'))}"
        + (f", {threads} worker threads" if threads else ""),
    )
    for older in envoy.get("older_epochs") or []:
        yield "draining", f"epoch {older.get('epoch')}, pid {older.get('pid')}"
    restarts = {reason: count for reason, count in (envoy.get("restarts") or {}).items() if count}
    yield "restarts", ", ".join(f"{count} {reason}" for reason, count in restarts.items()) or "none"
    last = envoy.get("last_exit")
    if last:
        how = f"signal {last['signal']}" if last.get("signal") else f"code {last.get('code')}"
        yield "last exit", f"{how} ({last.get('reason')}) after {seconds(last.get('uptime_seconds'))}"
    traffic = facts.get("traffic")
    if traffic:
        yield "traffic", f"{traffic['requests_total']} requests, {traffic['connections_active']} connections now"
    memory = facts.get("memory") or {}
    yield "memory", f"Envoy {mebibytes(memory.get('envoy_bytes'))}, agent {mebibytes(memory.get('agent_bytes'))}"


def _listeners(listeners: list[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for each in listeners[:MOST_LISTENERS]:
        yield str(each.get("name")), str(each.get("address"))
    if len(listeners) > MOST_LISTENERS:
        yield f"and {len(listeners) - MOST_LISTENERS} more (--json has all)", ""


def _certificates(certificates: list[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for each in certificates:
        name, problem = str(each.get("name")), each.get("last_error")
        if each.get("not_after"):
            yield (
                name,
                f"{each.get('spiffe_id') or each.get('subject') or NOTHING}, from {each.get('source') or NOTHING}",
            )
            yield "", f"serial {each.get('serial', NOTHING)}, {each.get('key', NOTHING)}"
            renewal = f", renewed at {each['next_renewal']}" if each.get("next_renewal") else ""
            yield "", f"expires {each['not_after']}{renewal}"
        elif each.get("roots") is not None:
            crl = " and a revocation list" if each.get("has_crl") else ""
            yield name, f"{each['roots']} root certificate{'s' if each['roots'] != 1 else ''}{crl}"
        else:
            yield name, "none"
        if problem:
            yield "", f"last error: {problem}"


def _istiod(xds: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for stream in xds.get("streams") or []:
        where = stream.get("istiod") or "not connected yet"
        yield str(where), f"{stream.get('kind')}, Envoy pid {stream.get('envoy_pid')}, since {stream.get('since')}"
        for name, each in (stream.get("types") or {}).items():
            state = "accepted" if each.get("answered_nonce") == each.get("nonce") else "under way"
            refused = f"REFUSED: {each['nack']}" if each.get("nack") else state
            yield "", f"{name.rpartition('.')[2]}: version {each.get('version') or NOTHING}, {refused}"
    if xds.get("problem"):
        yield "problem", str(xds["problem"])


def _configuration(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if config.get("services") is not None:
        yield "services", str(config["services"])
    yield "changes", f"{config.get('accepted', 0)} accepted, {config.get('refused', 0)} refused"
    if config.get("refusal"):
        yield "refused now", str(config["refusal"])
    for each in config.get("broken_files") or []:
        yield "broken file", str(each)


def _scrapes(scrapes: list[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for each in scrapes:
        took = 1000 * (each.get("seconds") or 0)
        said = f"{each.get('bytes', 0)} bytes in {took:.0f} ms, {each.get('failures', 0)} failures"
        error = each.get("last_error")
        yield str(each.get("source")), f"{said}; last error: {error}" if error else said


def seconds(value: float | None) -> str:
    """`12s`, `3m 5s`, `2h 1m`, `4d 3h`: the two units that matter."""
    if value is None:
        return NOTHING
    rest = int(value)
    found: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count or found or unit == "s":
            found.append(f"{count}{unit}")
    return " ".join(found[:2])


def mebibytes(value: float | None) -> str:
    return NOTHING if value is None else f"{value / 2**20:.1f} MiB"
