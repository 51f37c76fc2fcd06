"""`pilot-agent collateral` (hidden): writes the reference pages, made from the tables the agent itself works by.

Owns how a page looks; what it says is in the tables. A test compares the pages in docs/reference with `pages()`.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pilot_agent.commands.flags import LOGGING_FLAGS, Flag, show
from pilot_agent.commands.line import PROGRAM
from pilot_agent.commands.parsing import Parsed
from pilot_agent.commands.proxy_flags import PROXY_FLAGS
from pilot_agent.commands.table import COMMANDS, Command
from pilot_agent.errors import EXIT_OK, AgentError
from pilot_agent.metrics.catalogue import METRICS, MetricEntry
from pilot_agent.node.keys import METADATA_KEYS, RAW_KEYS, MetadataKey
from pilot_agent.settings.environment import NAMED_META, PREFIXES, VARIABLES, Variable, type_names
from pilot_agent.settings.paths import FILES
from pilot_agent.settings.schema import INT32, MESSAGES, ONE_OFS, PROXY_CONFIG_FIELDS, UINT32, Field

_ORIGIN = f"Made by `{PROGRAM} collateral` from the tables in the code; don't edit it here."


def run(parsed: Parsed) -> int:
    """Write the pages, and say which. Raises AgentError for a directory that can't be written."""
    directory = Path(parsed.values["directory"])
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in pages().items():
            (directory / name).write_text(text, encoding="utf-8")
            print(directory / name)
    except OSError as error:
        raise AgentError(f"--directory {directory}: {error.strerror}; give a directory that can be written") from None
    return EXIT_OK


def pages() -> dict[str, str]:
    """File name to Markdown; the same for every run of the same code."""
    return {
        "flags.md": _page("Commands and flags", _flags()),
        "environment.md": _page("Environment variables", _environment()),
        "proxy-config.md": _page("ProxyConfig", _proxy_config()),
        "metadata.md": _page("Node metadata", _metadata()),
        "metrics.md": _page("Metrics", _metrics()),
        "files.md": _page("Files and sockets", _files()),
    }


def _page(title: str, parts: Iterable[str]) -> str:
    return "\n\n".join([f"# {title}", _ORIGIN, *parts]) + "\n"


def _table(head: str, rows: Iterable[Sequence[str]]) -> str:
    columns = head.split(", ")
    lines = [_row(columns), "|" + "---|" * len(columns), *(_row(row) for row in rows)]
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _default(value: object) -> str:
    return "" if value is None or value == "" else _code(show(value))


# Commands and flags


def _flags() -> Iterable[str]:
    visible = [command for command in COMMANDS if not command.is_hidden]
    yield (
        "A flag is written `--flag value` or `--flag=value`; a boolean also `--flag` and `--no-flag`. "
        "`proxy` ignores unknown flags and says so; for every other command they are an error."
    )
    yield _table("command, what it does", [(_code(_usage(command)), command.summary) for command in visible])
    for command in visible:
        yield from _command(command)
    yield "## Logging flags"
    yield "Every command takes them."
    yield _flag_table(LOGGING_FLAGS)


def _usage(command: Command) -> str:
    return " ".join(filter(None, (PROGRAM, command.name, command.words.usage)))


def _command(command: Command) -> Iterable[str]:
    yield f"## {command.name}"
    yield _paragraphs(command.help)
    is_proxy = command.name == "proxy"
    if command.flags or is_proxy:
        yield _flag_table(PROXY_FLAGS if is_proxy else command.flags)
    if command.takes_proxy_flags and not is_proxy:
        yield "It also takes the flags of [proxy](#proxy)."


def _paragraphs(help_text: str) -> str:
    """The help; what keeps its lines in it (click's mark for that is a \b) becomes a block of code."""
    return "\n\n".join(map(_paragraph, re.split(r"\n{2,}", help_text.strip("\n"))))


def _paragraph(text: str) -> str:
    if text.startswith("\b"):
        return f"```sh\n{text.removeprefix(chr(8)).strip()}\n```"
    return text.replace("<", "\\<")  # else a placeholder is taken for HTML


def _flag_table(flags: Iterable[Flag]) -> str:
    rows = [(_flag_name(flag), _flag_type(flag), _default(flag.default), flag.effect) for flag in flags]
    return _table("flag, type, default, effect", rows)


def _flag_name(flag: Flag) -> str:
    return ", ".join(_code(name) for name in (f"-{flag.short}" if flag.short else "", f"--{flag.name}") if name)


def _flag_type(flag: Flag) -> str:
    kind = " or ".join(map(_code, flag.choices)) or flag.kind
    least = f", at least {flag.least}" if flag.least is not None else ""
    alone = f"; alone it means `{flag.bare}`" if flag.bare else ""
    return kind + least + alone + (", repeatable" if flag.is_repeatable else "")


# Environment variables


def _environment() -> Iterable[str]:
    yield (
        "A value that can't be parsed is a warning, and the default is used. Booleans are Go's: `true`, `1`, `t`, "
        "`false`, ...; durations too: `1m30s`, `250ms`. Variables of parts that this version does not have are known, "
        "checked and shown by `config`, and nothing else."
    )
    for is_used, title in ((True, "## Part {}"), (False, "## Part {}: not in this version")):
        of_kind = [variable for variable in VARIABLES if variable.is_used is is_used]
        for part in dict.fromkeys(variable.part for variable in of_kind):
            yield title.format(part)
            yield _variable_table(variable for variable in of_kind if variable.part == part)
    yield "## Variables known by their prefix"
    rows = [(_code(f"{prefix.name}*"), prefix.effect, _used(prefix.part, prefix.is_used)) for prefix in PREFIXES]
    yield _table("variable, effect, part", rows)
    yield "Some of them do more than that:"
    yield _table("variable, effect", [(_code(name), effect) for name, effect in NAMED_META])


def _variable_table(variables: Iterable[Variable]) -> str:
    rows = [
        (_code(each.name), type_names[type(each.default)], _default(each.default), each.effect) for each in variables
    ]
    return _table("variable, type, default, effect", rows)


def _used(part: str, is_used: bool) -> str:
    return part if is_used else f"{part}: not in this version"


# ProxyConfig


def _proxy_config() -> Iterable[str]:
    yield (
        "Names may be camelCase or snake_case. Where values come from, and which source wins, is in "
        "[settings](../settings.md)."
    )
    yield _field_table(PROXY_CONFIG_FIELDS.values(), has_effect=True)
    for name, fields in MESSAGES.items():
        yield f"## {name}"
        yield _field_table(fields) if fields else "It has no fields."
        for group in ONE_OFS.get(name, ()):
            yield f"At most one of {', '.join(map(_code, group))}; the last one of a document counts."


def _field_table(fields: Iterable[Field], *, has_effect: bool = False) -> str:
    if has_effect:
        rows = [(_code(each.name), _field_type(each), _default(each.default), each.effect) for each in fields]
        return _table("field, type, default, effect", rows)
    return _table("field, type", [(_code(each.name), _field_type(each)) for each in fields])


_BOUNDS = {INT32: "", UINT32: ", not negative"}
_KINDS = {"map": "texts by name", "free": "as it is"}


def _field_type(field: Field) -> str:
    if field.message:
        link = f"[{field.message}](#{field.message.lower()})"
        return f"{link} by name" if field.kind == "messages" else link
    choices = " or ".join(map(_code, field.choices))
    if field.kind == "list":
        return f"list of {choices}" if choices else "list of texts"
    if field.kind == "integer":
        return f"integer{_BOUNDS.get(field.bounds, ', 64 bits')}"
    return choices or _KINDS.get(field.kind, field.kind)


# Node metadata, metrics, files


def _metadata() -> Iterable[str]:
    yield "Keys whose JSON type is fixed; every other key stays as it was told."
    yield _key_table(METADATA_KEYS)
    yield "Beside them, `true` as a text or not at all:"
    yield _key_table(RAW_KEYS)


def _key_table(keys: Iterable[MetadataKey]) -> str:
    return _table("key, JSON type, from, effect", [(_code(each.name), *each[1:]) for each in keys])


def _metrics() -> Iterable[str]:
    yield (
        "What the agent tells of itself on 15020, under the names of a text scrape; OpenMetrics has the same samples. "
        "How they are merged with Envoy's and the application's is in [metrics](../metrics.md)."
    )
    for is_used, title in ((True, "## {}"), (False, "## {}: not in this version")):
        of_kind = [entry for entry in METRICS if entry.is_used is is_used]
        for part in dict.fromkeys(entry.part for entry in of_kind):
            yield title.format(part)
            yield _metric_table(entry for entry in of_kind if entry.part == part)


def _metric_table(entries: Iterable[MetricEntry]) -> str:
    rows = [(_code(each.name), each.kind, ", ".join(map(_code, each.labels)), each.meaning) for each in entries]
    return _table("metric, type, labels, meaning", rows)


def _files() -> Iterable[str]:
    yield "Paths that begin with `./` are relative to the working directory, which is `/` in an image."
    rows = [(", ".join(map(_code, each.path.split(", "))), each.use, each.mode, each.what) for each in FILES]
    yield _table("path, use, mode, what", rows)
