"""`pilot-agent proxy-config`: a view of Envoy's configuration, from the running one or from a dump in a file.

Owns what is asked, read and printed; what a view shows is `pilot_agent.inspect`'s. Nothing of a view is imported before
the flags are known to be right.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pilot_agent.commands.flags import log_options
from pilot_agent.commands.http_call import Call, RequestFailed
from pilot_agent.commands.line import nearest
from pilot_agent.commands.parsing import Parsed
from pilot_agent.commands.view_flags import TAKEN, VIEW_FLAGS, VIEWS
from pilot_agent.errors import EXIT_OK, AgentError, UsageError
from pilot_agent.inspect import config_dump, loggers, views
from pilot_agent.inspect.views import Wanted
from pilot_agent.log import Log

TIMEOUT_S = 60.0
"""Envoy takes seconds for the dump of a large mesh."""
LARGEST = 1024 * 1024 * 1024
_CHUNK = 1024 * 1024
_STDIN = "-"
_PATHS = {"all": "/config_dump?include_eds", "endpoints": "/clusters?format=json"}


def run(parsed: Parsed) -> int:
    """Print the view. Raises UsageError for what it does not take, AgentError where there is nothing to show it of."""
    Log(log_options(parsed.values))
    view = view_of(parsed)
    values = dict(parsed.values)
    if "proxy_admin_port" in parsed.given:
        values["admin_port"] = values["proxy_admin_port"]
    if view == "log":
        sys.stdout.write(log(values))
        return EXIT_OK
    try:
        show(view, values)
    except RecursionError:
        raise AgentError("the dump is nested too deeply to be one of Envoy's") from None
    return EXIT_OK


def view_of(parsed: Parsed) -> str:
    """The view's full name. Raises UsageError for one there is not, and for flags it does not take."""
    word = parsed.words[0]
    view = VIEWS.get(word)
    if view is None:
        raise UsageError(f'unknown view "{word}": there are {", ".join(TAKEN)}{nearest(word, TAKEN)}')
    for flag in VIEW_FLAGS:
        if flag.attribute in parsed.given and flag.attribute not in TAKEN[view]:
            takers = ", ".join(name for name, taken in TAKEN.items() if flag.attribute in taken)
            raise UsageError(f"--{flag.name} is not for {view}, but for {takers}")
    for flag in VIEW_FLAGS:
        if flag.name.lower().endswith("port") and parsed.values[flag.attribute] > 65535:
            raise UsageError(f"--{flag.name} {parsed.values[flag.attribute]} is no port: the largest is 65535")
    return view


def show(view: str, values: dict[str, Any]) -> None:
    """Print a view of a dump, from a file or the running Envoy."""
    data, where = obtain(values, _PATHS.get(view, "/config_dump"))
    dump = config_dump.parse(data, where)
    output = values["output"] or ("json" if view == "bootstrap" else "short")
    wanted = Wanted(output, values["verbose"], **{name: values[name] for name in Wanted._fields[2:]})
    now = datetime.now(UTC)
    if view != "all":
        sys.stdout.write(views.SINGLE[view](dump, wanted, now))
    elif output == "short":
        for part in views.of_everything(dump, wanted, now):
            sys.stdout.write(part)
    else:
        sys.stdout.write(views.whole(dump, data, output))


def log(values: dict[str, Any]) -> str:
    """Set Envoy's levels where that is asked for, and tell them."""
    if values["reset"] and values["level"]:
        raise UsageError("--level and --reset exclude each other")
    wanted = loggers.DEFAULT if values["reset"] else values["level"]
    if wanted:
        loggers.check(wanted)
    levels = _levels(values, loggers.PATH)
    for request in loggers.changes(wanted, levels) if wanted else ():
        levels = _levels(values, request)
    return loggers.shown(levels)


def _levels(values: dict[str, Any], path: str) -> dict[str, str]:
    answer = ask(values, "POST", path)
    levels = loggers.present(answer.decode(errors="replace"))
    if not levels:
        raise AgentError(f"POST {_url(values, path)}: the answer names no loggers: is this Envoy's admin interface?")
    return levels


# Where it comes from


def obtain(values: dict[str, Any], path: str) -> tuple[bytes, str]:
    """The file, or what the running Envoy answers to `path`, and what messages call it."""
    name = values["file"]
    if not name:
        return ask(values, "GET", path), f"GET {_url(values, path)}"
    return read_file(name), "standard input" if name == _STDIN else f"--file {name}"


def read_file(name: str) -> bytes:
    """A file's bytes, or those of standard input for `-`. Raises AgentError."""
    try:
        if name == _STDIN:
            data = sys.stdin.buffer.read(LARGEST + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL in it
        reason = error.strerror if isinstance(error, OSError) else error
        raise AgentError(f"--file {name}: {reason}; give a file that holds what Envoy's /config_dump answers") from None
    return _bounded(data, f"--file {name}")


def ask(values: dict[str, Any], method: str, path: str) -> bytes:
    """What Envoy answers. Raises AgentError for no answer, or one that is not 200."""
    url = _url(values, path)
    body = bytearray()
    try:
        with Call(method, url).answered(TIMEOUT_S) as answer:
            while len(body) <= LARGEST and (chunk := answer.read(_CHUNK)):
                body += chunk
    except RequestFailed as error:
        raise RequestFailed(f"{error}; is Envoy running here, and is --adminPort its admin interface's?") from None
    if answer.status != 200:
        said = " ".join(body[:200].decode(errors="replace").split())
        raise AgentError(f"{method} {url}: HTTP status code {answer.status}: {said}; is this Envoy's admin interface?")
    return _bounded(bytes(body), f"{method} {url}")


def _bounded(data: bytes, where: str) -> bytes:
    if len(data) > LARGEST:
        raise AgentError(f"{where}: larger than {LARGEST >> 20} MiB, which no dump of Envoy is")
    return data


def _url(values: dict[str, Any], path: str) -> str:
    return f"http://localhost:{values['admin_port']}{path}"
