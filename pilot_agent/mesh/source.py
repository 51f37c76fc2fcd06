"""Text to untyped documents, and a field's path back to its line. YAML and JSON; nothing here knows a kind.

PyYAML is imported by the functions that need it: an agent with an empty directory never loads it. Values are made by
the fast C loader; nodes with their marks are composed only once there is a problem to point at.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

from pilot_agent.mesh.model import DocumentRefused, Path

MAX_DOCUMENTS = 1000
MAX_DEPTH = 500
"""libyaml's composer recurses in C: some 100,000 brackets kill the process, so depth is checked before it starts."""


class Source:
    """One file's text: its documents, and the lines of what is in them."""

    def __init__(self, file: str, content: bytes) -> None:
        """Raises DocumentRefused unless `content` is UTF-8."""
        self.file = file
        try:
            self._text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            reason = f"byte 0x{content[error.start]:02x} is not UTF-8: save the file as UTF-8"
            raise DocumentRefused(file, line, "", reason) from None
        self._nodes: list[Any] | None = None

    def documents(self) -> list[tuple[int, object]]:
        """The line each document begins at, and its value (None for an empty one). Raises DocumentRefused."""
        return [(1, _json(self.file, self._text))] if self.file.endswith(".json") else _yaml(self.file, self._text)

    def line(self, document: int, path: Path) -> int:
        """The line of the field at `path`; of its nearest parent when it is not there. After documents() only."""
        if self._nodes is None:
            import yaml

            try:
                self._nodes = list(yaml.compose_all(self._text, Loader=_loader()))
            except (yaml.YAMLError, RecursionError):  # JSON that is not YAML
                self._nodes = []
        return _line_in(self._nodes[document], path) if document < len(self._nodes) else 1


def _line_in(node: Any, path: Path) -> int:
    line: int = node.start_mark.line + 1
    mark: Any
    found: Any
    for step in path:
        if isinstance(step, int):
            found = node.value[step] if node.id == "sequence" and step < len(node.value) else None
            mark = found
        else:
            pairs = node.value if node.id == "mapping" else ()
            mark, found = next((pair for pair in pairs if pair[0].value == step), (None, None))
        if found is None:
            break
        node, line = found, mark.start_mark.line + 1
    return line


def _json(file: str, text: str) -> object:
    import json

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        mapping = dict(pairs)
        if len(mapping) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise DocumentRefused(file, _second(text, twice), "", f"the key {twice!r} is there twice: remove one")
        return mapping

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise DocumentRefused(file, error.lineno, "", f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise DocumentRefused(file, 1, "", f"nested deeper than {MAX_DEPTH} levels: flatten it") from None


def _second(text: str, key: str) -> int:
    """The line of the second `"key"`: as near as it gets without a parser that keeps positions."""
    first = text.find(f'"{key}"')
    return text.count("\n", 0, max(0, text.find(f'"{key}"', first + 1))) + 1


def _yaml(file: str, text: str) -> list[tuple[int, object]]:
    import yaml

    try:
        _check_depth(file, text)
        return list(_limited(file, yaml.load_all(text, Loader=_loader())))
    except yaml.MarkedYAMLError as error:
        line = _line(error.problem_mark or error.context_mark)
        if "nesting depth" in str(error):  # libyaml's own limit, which it meets before it tells of any event
            raise DocumentRefused(file, line, "", f"nested deeper than {MAX_DEPTH} levels: flatten it") from None
        raise DocumentRefused(file, line, "", f"not YAML: {_sentence(error)}") from None
    except yaml.reader.ReaderError as error:
        line = text.encode().count(b"\n", 0, error.position) + 1
        raise DocumentRefused(file, line, "", f"not YAML: {error.reason}: remove the character") from None
    except (ValueError, OverflowError, RecursionError) as error:  # a date such as 2024-13-45, a number of 5,000 digits
        raise DocumentRefused(file, 1, "", f"not YAML: {error}: put the value in quotes") from None


def _limited(file: str, loaded: Iterator[tuple[int, object]]) -> Iterator[tuple[int, object]]:
    for count, document in enumerate(loaded, start=1):
        if count > MAX_DOCUMENTS:
            raise DocumentRefused(file, 1, "", f"more than {MAX_DOCUMENTS} documents: split the file")
        yield document


def _check_depth(file: str, text: str) -> None:
    """Refuse deep nesting while still reading events, which needs no stack."""
    import yaml

    if not _may_be_deep(text):
        return
    depth = 0
    for event in yaml.parse(text, Loader=_loader()):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise DocumentRefused(
                    file, _line(event.start_mark), "", f"nested deeper than {MAX_DEPTH} levels: flatten it"
                )
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _may_be_deep(text: str) -> bool:
    """False where nesting beyond the limit is impossible: most files, which then are parsed once only.

    A level takes a bracket or a column; only a list may start in the column of the mapping it belongs to.
    """
    longest = max(map(len, text.splitlines()), default=0)
    return text.count("[") + text.count("{") + 2 * longest > MAX_DEPTH


def _line(mark: Any) -> int:
    """PyYAML counts from 0."""
    return mark.line + 1 if mark else 1


def _sentence(error: Any) -> str:
    return ", ".join(part for part in (error.context, error.problem) if part)


@cache
def _loader() -> Any:
    """A safe loader that refuses a key written twice, which YAML otherwise resolves in silence."""
    import yaml

    base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc, valid-type]
        def construct_document(self, node: Any) -> tuple[int, object]:
            return node.start_mark.line + 1, super().construct_document(node)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if key.id == "scalar" and key.value in seen:
                    problem = f"the key {key.value!r} is there twice: remove one"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value if key.id == "scalar" else id(key))
            mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
            return mapping

    return Loader
