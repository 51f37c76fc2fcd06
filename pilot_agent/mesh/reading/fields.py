"""Typed reading of one untyped document: a cursor that knows its path, refuses wrong values and notes unused ones.

It knows nothing of Istio, files or lines: a refusal carries the path, and whoever has the text finds the line.
"""

from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple, NoReturn, TypeVar

from pilot_agent.mesh.model import Path
from pilot_agent.values import Duration, parse_port

T = TypeVar("T")

_MAX_SHOWN = 80
_MAX_TEXT = 1024
_LONGEST = 876_000 * 3600  # Envoy refuses what comes near to its own limit, 292 years


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

    def as_if(self, value: object) -> "Field":
        """The same place with another value: for a part of a text that has its own rules."""
        return Field(value, self.path, self._unused)

    @property
    def is_set(self) -> bool:
        return self.value is not None

    @property
    def place(self) -> int:
        """Where it stands in its list, from 0; 0 for what is in none."""
        return step if isinstance(step := self.path[-1], int) else 0

    @property
    def name(self) -> str:
        """The key it stands at, of a mapping from free names."""
        return str(self.path[-1])

    def if_set(self, read: Callable[["Field"], T]) -> T | None:
        """`timeout.if_set(Field.duration)`: what `read` makes of it, None where there is nothing."""
        return None if self.value is None else read(self)

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
        """The elements of a list (none when it is missing), at most `most` of them and none of them empty."""
        if self.value is None:
            return []
        if not isinstance(self.value, list):
            self.refuse(f"{shown(self.value)} is not a list: start each element with `- `")
        if len(self.value) > most:
            self.refuse(f"has {len(self.value)} elements: at most {most} are allowed, split the document")
        elements = [Field(value, (*self.path, index), self._unused) for index, value in enumerate(self.value)]
        for element in elements:
            if element.value is None:
                element.refuse("is empty: fill it in, or remove its `-`")
        return elements

    def entries(self, most: int) -> list["Field"]:
        """The values of a mapping from free names, at most `most` of them. A number as a key counts as its text."""
        if self.value is None:
            return []
        if not isinstance(self.value, dict):
            self.refuse(f"{shown(self.value)} is not a mapping: write `name: value` lines below it")
        if len(self.value) > most:
            self.refuse(f"has {len(self.value)} keys: at most {most} are allowed")
        return [Field(value, (*self.path, self._key(key)), self._unused) for key, value in self.value.items()]

    def _key(self, key: object) -> str:
        if isinstance(key, str):
            if not key or len(key) > _MAX_TEXT or not key.isprintable():
                self.refuse(f"the key {shown(key)} is not usable: give 1 to {_MAX_TEXT} characters that can be printed")
            return key
        if isinstance(key, bool) or not isinstance(key, int) or key.bit_length() > 64:
            self.refuse(f"the key {shown(key)} is not text: put it in quotes")
        return str(key)

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

    def optional_text(self) -> str:
        """Text, "" where it is missing or empty: protobuf knows no difference."""
        return "" if self.value is None or self.value == "" else self.text()

    def flag(self) -> bool:
        """True or false, false where it is missing."""
        if self.value is not None and not isinstance(self.value, bool):
            self.refuse(f"{shown(self.value)} is neither true nor false: write one of them, without quotes")
        return bool(self.value)

    def duration(self, least: int = 1) -> str:
        """A length of time of `least` milliseconds or more, in protobuf's JSON form (`1.5s`)."""
        try:
            duration = Duration.parse(self.text())
        except ValueError:
            self.refuse(
                f"{shown(self.value)} is not a duration: write a number with a unit, such as 5s, 250ms or 1m30s"
            )
        if duration.nanoseconds < least * 10**6:
            self.refuse(f"{shown(self.value)} is too short: give {least}ms or more")
        if duration.seconds > _LONGEST:
            self.refuse(f"{shown(self.value)} is too long: give 100 years (876000h) at most")
        if duration.nanoseconds % 10**6:
            self.refuse(f"{shown(self.value)} is finer than milliseconds: round it")
        return str(duration)

    def number(self, least: float, most: float) -> float:
        """A number with or without a fraction."""
        number = self.value
        if isinstance(number, bool) or not isinstance(number, int | float) or not least <= number <= most:
            self.refuse(f"{shown(number)} is not usable: give a number from {least:g} to {most:g}")
        return float(number)

    def choice(self, choices: Iterable[str]) -> str:
        allowed = tuple(choices)
        if self.value is None:
            self.refuse(f"is missing: give one of {', '.join(allowed)}")
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
        text += f"[{step}]" if isinstance(step, int) else f".{_key(step)}" if text else _key(step)
    return text


def _key(step: str) -> str:
    return step if step.isprintable() and 0 < len(step) <= _MAX_SHOWN else shown(step)


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
