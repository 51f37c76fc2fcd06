"""Text to untyped documents, and a field's path back to its line. YAML and JSON; nothing here knows a kind.

PyYAML is imported by the functions that need it: an agent with an empty directory never loads it. Values are made by
the fast C loader; nodes with their marks are composed only once there is a problem to point at.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from pilot_agent.mesh.model import DocumentRefused, Path

MAX_DOCUMENTS = 10_000
MAX_DEPTH = 500
"""libyaml's composer recurses in C: some 100,000 brackets kill the process, so depth is checked before it starts."""
MAX_VALUES = 200_000
"""What aliases may stand for in a file, all in all: a few lines of them can mean more than any memory holds."""

_BOM = b"\xef\xbb\xbf"
_DOCUMENT = re.compile(rb"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)
_DIRECTIVE = re.compile(rb"^%", re.MULTILINE)


class Chunk:
    """A stretch of a file that can be read alone: nearly always one document. `line` is the first of it, from 1."""

    def __init__(self, file: str, content: bytes, line: int) -> None:
        self.file, self.content, self.line = file, content, line
        self.values = 0
        """How many values the aliases of the documents stand for; known once they are read."""
        self._nodes: list[Any] | None = None

    def documents(self) -> list[tuple[int, object]]:
        """The line each document begins at, and its value (None for an empty one). Raises DocumentRefused."""
        text = self._text()
        if self.file.endswith(".json"):
            return [(1, _json(self.file, text))]
        self._nodes = []
        return self._yaml(text)

    def forget(self) -> None:
        """Let go of the lines, which take many times the room of the text; asking for one parses it again."""
        self._nodes = None

    def line_of(self, document: int, path: Path) -> int:
        """The line of the field at `path`; of its nearest parent when it is not there."""
        nodes = self.nodes()
        return self.line - 1 + _line_in(nodes[document], path) if document < len(nodes) else self.line

    def nodes(self) -> list[Any]:
        """The documents with the lines of all they hold: left by documents(), else parsed for it."""
        if self._nodes is None:
            import yaml

            try:
                self._nodes = list(yaml.compose_all(self._text(), Loader=_loader()))
            except (yaml.YAMLError, RecursionError):  # JSON that is not YAML
                self._nodes = []
        return self._nodes

    def _text(self) -> str:
        try:
            return self.content.decode()
        except UnicodeDecodeError as error:
            line = self.line + self.content.count(b"\n", 0, error.start)
            reason = f"byte 0x{self.content[error.start]:02x} is not UTF-8: save the file as UTF-8"
            raise DocumentRefused(self.file, line, "", reason) from None

    def _yaml(self, text: str) -> list[tuple[int, object]]:
        import yaml

        try:
            self._check_depth(text)
            return list(self._loaded(_loader()(text), has_aliases="*" in text and "&" in text))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            if "nesting depth" in str(error):  # libyaml's own limit, which it meets before it tells of any event
                raise self._refusal(mark, f"nested deeper than {MAX_DEPTH} levels: flatten it") from None
            raise self._refusal(mark, f"not YAML: {_sentence(error)}") from None
        except yaml.reader.ReaderError as error:
            line = self.line + text.encode().count(b"\n", 0, error.position)
            raise DocumentRefused(self.file, line, "", f"not YAML: {error.reason}: remove the character") from None
        except RecursionError:
            raise self._refusal(None, f"nested deeper than {MAX_DEPTH} levels: flatten it") from None
        except (ValueError, OverflowError) as error:  # a date such as 2024-13-45, a number of 5,000 digits
            mark = self._unreadable()
            raise self._refusal(mark, f"not YAML: {error}: put the value in quotes") from None

    def _loaded(self, loader: Any, has_aliases: bool) -> Iterator[tuple[int, object]]:
        try:
            while loader.check_node():
                node = loader.get_node()
                if has_aliases:
                    self.values += _expanded(node, MAX_VALUES)
                if self._nodes is not None:
                    self._nodes.append(node)
                yield self.line + node.start_mark.line, loader.construct_document(node)
        finally:
            loader.dispose()

    def _check_depth(self, text: str) -> None:
        """Refuse deep nesting while still reading events, which needs no stack."""
        import yaml

        if not _may_be_deep(text):
            return
        depth = 0
        for event in yaml.parse(text, Loader=_loader()):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > MAX_DEPTH:
                    raise self._refusal(event.start_mark, f"nested deeper than {MAX_DEPTH} levels: flatten it")
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1

    def _unreadable(self) -> Any:
        """The mark of the first value that looks like a date or number and is none."""
        loader = _loader()("")
        self.forget()
        for root in self.nodes():
            for node in _nodes_below(root):
                try:
                    if node.id == "scalar":
                        loader.construct_document(node)
                except (ValueError, OverflowError):
                    return node.start_mark
        return None

    def _refusal(self, mark: Any, reason: str) -> DocumentRefused:
        """PyYAML counts lines from 0."""
        return DocumentRefused(self.file, self.line + (mark.line if mark else 0), "", reason)


class Source:
    """One file's text: its documents, and the lines of what is in them."""

    def __init__(self, file: str, content: bytes) -> None:
        self.chunks = split(file, content)

    def line(self, document: int, path: Path) -> int:
        """The line of the field at `path` of a document, counted from 0 in the whole file."""
        for chunk in self.chunks:
            count = len(chunk.nodes())
            if document < count:
                return chunk.line_of(document, path)
            document -= count
        return 1


def split(file: str, content: bytes) -> list[Chunk]:
    """Cut a file before each `---` of YAML, which ends a document wherever a line begins with it (YAML 1.2, 9.1.2).

    Directives belong to the document after them, so a file that may have one is a single chunk. JSON is one too.
    Raises DocumentRefused for too many documents.
    """
    content = content.removeprefix(_BOM)
    if file.endswith(".json") or _DIRECTIVE.search(content):
        return [Chunk(file, content, 1)]
    starts = [match.start() for match in _DOCUMENT.finditer(content)]
    if len(starts) > MAX_DOCUMENTS:
        raise DocumentRefused(file, 1, "", f"more than {MAX_DOCUMENTS} documents: split the file")
    chunks, line = [], 1
    for start, end in zip([0, *starts], [*starts, len(content)], strict=True):
        if end > start:
            chunks.append(Chunk(file, content[start:end], line))
            line += content.count(b"\n", start, end)
    return chunks


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


def _nodes_below(root: Any) -> Iterator[Any]:
    """Every node once, in the order they are written as far as that matters."""
    seen, waiting = set(), [root]
    while waiting:
        node = waiting.pop()
        if id(node) not in seen:
            seen.add(id(node))
            yield node
            waiting += reversed(_children(node))


def _children(node: Any) -> list[Any]:
    if node.id == "mapping":
        return [part for pair in node.value for part in pair]
    return list(node.value) if node.id == "sequence" else []


def _expanded(root: Any, most: int) -> int:
    """How many values there are once every alias is replaced by what it stands for.

    Raises yaml.MarkedYAMLError for more than `most`, and for what contains itself.
    """
    import yaml

    sizes: dict[int, int] = {}
    stack = [(root, iter(_children(root)))]
    counts = [1]
    is_open = {id(root)}
    while stack:
        node, rest = stack[-1]
        child = next(rest, None)
        if child is None:
            stack.pop()
            is_open.discard(id(node))
            sizes[id(node)] = size = counts.pop()
            if counts:
                counts[-1] += size
            if size > most:
                problem = f"its aliases stand for more than {most} values: write less of them"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        elif id(child) in is_open:
            problem = "it contains itself by an alias: write out what is meant"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=child.start_mark)
        elif id(child) in sizes:
            counts[-1] += sizes[id(child)]
        else:
            is_open.add(id(child))
            stack.append((child, iter(_children(child))))
            counts.append(1)
    return sizes[id(root)]


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
    except ValueError:  # Python reads no number of more than 4,300 digits
        raise DocumentRefused(file, 1, "", "not JSON: has a number that is too long: shorten it") from None


def _second(text: str, key: str) -> int:
    """The line of the second `"key"`: as near as it gets without a parser that keeps positions."""
    first = text.find(f'"{key}"')
    return text.count("\n", 0, max(0, text.find(f'"{key}"', first + 1))) + 1


def _may_be_deep(text: str) -> bool:
    """False where nesting beyond the limit is impossible: most files, which then are parsed once only.

    A level takes a bracket or a column; only a list may start in the column of the mapping it belongs to.
    """
    longest = max(map(len, text.splitlines()), default=0)
    return text.count("[") + text.count("{") + 2 * longest > MAX_DEPTH


def _sentence(error: Any) -> str:
    return ", ".join(part for part in (error.context, error.problem) if part)


@cache
def _loader() -> Any:
    """A safe loader that refuses a key written twice, which YAML otherwise resolves in silence."""
    import yaml

    base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc, valid-type]
        def flatten_mapping(self, node: Any) -> None:
            """Called before a mapping is made, and for what is merged into another with `<<`, perhaps before that."""
            if getattr(node, "is_flat", False):
                return
            node.is_flat = True
            seen = set()
            for key, _ in node.value:
                if key.id == "scalar":
                    if key.value in seen:
                        problem = f"the key {key.value!r} is there twice: remove one"
                        raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                    seen.add(key.value)
            super().flatten_mapping(node)

    return Loader
