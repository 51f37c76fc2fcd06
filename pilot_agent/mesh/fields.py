"""Typed reading of one untyped document: a cursor that knows its path, refuses wrong values and notes unused ones.

It knows nothing of Istio, files or lines: a refusal carries the path, and whoever has the text finds the line.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple, NoReturn

from pilot_agent.mesh.model import Path
from pilot_agent.values import parse_port

_MAX_SHOWN = 80
_MAX_TEXT = 1024


class FieldRefused(Exception):
    """A value that can't be used; `path` leads to it from the top of its document."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(reason)
        self.path, self.reason = path, reason


class Unused(NamedTuple):
    path: Path
    reason: str


class Field:
    """A value of a document and the way to it. Missing fields are Fields too, with the value None, as in protobuf."""

    __slots__ = ("_unused", "path", "value")

    def __init__(self, value: object, path: Path, unused: list[Unused]) -> None:
        self.value, self.path, self._unused = value, path, unused

    def __getitem__(self, name: str) -> "Field":
        """The field `name` of a mapping, or of nothing."""
        value = self.value.get(name) if isinstance(self.value, dict) else None
        return Field(value, (*self.path, name), self._unused)

    @property
    def is_set(self) -> bool:
        return self.value is not None

    def refuse(self, reason: str) -> NoReturn:
        raise FieldRefused(self.path, reason)

    def warn(self, reason: str) -> None:
        self._unused.append(Unused(self.path, reason))

    def mapping(self, known: Collection[str], ignored: Collection[str] = ()) -> "Field":
        """This field, checked to be a mapping (or nothing); every key that is not `known` becomes a warning.

        `ignored` keys are quiet: what the API server writes into every object.
        """
        if self.value is not None and not isinstance(self.value, dict):
            self.refuse(f"{shown(self.value)} is not a mapping: write `key: value` lines below it")
        for key in self.value or ():
            if not isinstance(key, str):
                self.refuse(f"the key {shown(key)} is not text: put it in quotes")
            if key not in known and key not in ignored:
                self[key].warn(f"is not supported here and has no effect{_nearest(key, known)}")
        return self

    def items(self, most: int) -> list["Field"]:
        """The elements of a list (none when it is missing), at most `most` of them."""
        if self.value is None:
            return []
        if not isinstance(self.value, list):
            self.refuse(f"{shown(self.value)} is not a list: start each element with `- `")
        if len(self.value) > most:
            self.refuse(f"has {len(self.value)} elements: at most {most} are allowed, split the document")
        return [Field(value, (*self.path, index), self._unused) for index, value in enumerate(self.value)]

    def entries(self, most: int) -> list["Field"]:
        """The values of a mapping from free names (its keys are text), at most `most` of them."""
        if self.value is None:
            return []
        if not isinstance(self.value, dict):
            self.refuse(f"{shown(self.value)} is not a mapping: write `name: value` lines below it")
        if len(self.value) > most:
            self.refuse(f"has {len(self.value)} keys: at most {most} are allowed")
        for key in self.value:
            if not isinstance(key, str):
                self.refuse(f"the key {shown(key)} is not text: put it in quotes")
        return [self[key] for key in self.value]

    def text(self) -> str:
        """Text of one line that can be written as UTF-8."""
        if not isinstance(self.value, str):
            hint = "is missing" if self.value is None else f"{shown(self.value)} is not text: put it in quotes"
            self.refuse(hint)
        if not self.value or len(self.value) > _MAX_TEXT:
            self.refuse(f"has {len(self.value)} characters: give 1 to {_MAX_TEXT}")
        if not self.value.isprintable():  # control characters, line ends and halves of surrogate pairs
            self.refuse(f"{shown(self.value)} has characters that can't be printed: remove them")
        return self.value

    def choice(self, choices: Iterable[str]) -> str:
        allowed = tuple(choices)
        if self.value not in allowed:
            self.refuse(f"{shown(self.value)} is unknown: use one of {', '.join(allowed)}")
        return str(self.value)

    def port(self) -> int:
        try:
            return parse_port(self.value)
        except ValueError as error:
            if self.value is None:
                self.refuse("is missing: give a port from 1 to 65535")
            if isinstance(self.value, int | str):
                self.refuse(f"{_cut(str(error))}; give a number from 1 to 65535")
            self.refuse(f"{shown(self.value)} is not a port number: give a number from 1 to 65535")

    def whole_number(self, least: int, most: int) -> int:
        number = self.value
        if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
            self.refuse(f"{shown(number)} is not usable: give a whole number from {least} to {most}")
        return number


def dotted(path: Path) -> str:
    """`spec.ports[0].number`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def shown(value: object) -> str:
    """A value for a message: short, on one line, and never the whole of a structure (aliases may make it endless)."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 128:
        return "a huge number"  # Python refuses to print the longest ones
    if isinstance(value, str | bytes):
        value = value[: _MAX_SHOWN + 1]
    return _cut(ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _nearest(key: str, known: Collection[str]) -> str:
    import difflib  # only when there is something to complain about

    near = difflib.get_close_matches(key[:_MAX_SHOWN], known, n=1, cutoff=0.8)
    return f"; did you mean {near[0]}?" if near else ""
