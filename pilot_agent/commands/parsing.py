"""Reading a command line by a table of flags: values, words, unknown flags, and whether help is asked for.

Ours rather than click's, which costs 20 ms before the first line of a command runs. Forms and errors are pflag's, as
scripts around Istio's agent know them. Lenient: what is too much is kept, and `line` judges it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from pilot_agent.commands.flags import Flag
from pilot_agent.errors import UsageError

HELP = ("-h", "--help")


class Parsed(NamedTuple):
    """`values` by attribute, defaults included; `words` that are no flags; `unknown` flags as they were written.

    `given` has the attributes that were set on the command line. Behind a call for help nothing was read.
    """

    values: dict[str, Any]
    words: list[str]
    unknown: list[str]
    given: frozenset[str] = frozenset()
    asks_for_help: bool = False


def parse(flags: Sequence[Flag], args: Sequence[str]) -> Parsed:
    """Read `args`: `--flag value`, `--flag=value`, `-f value`, `-fvalue`, and for booleans also `--flag`, `--no-flag`.

    Raises UsageError for a value that does not fit its flag, or is missing.
    """
    reading = _Reading(flags)
    rest = list(args)
    while rest and not reading.asks_for_help:
        word = rest.pop(0)
        if word == "--":
            reading.words.extend(rest)
            break
        if word.startswith("--"):
            reading.long(word, rest)
        elif word.startswith("-") and word != "-":
            reading.short(word, rest)
        else:
            reading.words.append(word)
    return reading.result()


class _Reading:
    """A command line half read."""

    def __init__(self, flags: Sequence[Flag]) -> None:
        self._known = {f"--{flag.name}": flag for flag in flags}
        self._letters = {flag.short: flag for flag in flags if flag.short}
        self._values = {flag.attribute: flag.default for flag in flags}
        self._given: set[str] = set()
        self._unknown: list[str] = []
        self.words: list[str] = []
        self.asks_for_help = False

    def result(self) -> Parsed:
        return Parsed(self._values, self.words, self._unknown, frozenset(self._given), self.asks_for_help)

    def long(self, word: str, rest: list[str]) -> None:
        name, equals, text = word.partition("=")
        flag = self._known.get(name)
        if flag is not None:
            self._set(flag, text if equals else flag.alone or _following(name, rest))
        elif name.startswith("--no-") and (flag := self._known.get(f"--{name[5:]}")) is not None and flag.is_boolean:
            self._set(flag, "false")
        elif word in HELP:
            self.asks_for_help = True
        else:
            self._unknown.append(word)

    def short(self, word: str, rest: list[str]) -> None:
        """Booleans may share a dash, `-sh`; what follows another letter is its value, with or without `=`."""
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            flag = self._letters.get(letter)
            if flag is None:
                if f"-{letter}" in HELP and not letters:
                    self.asks_for_help = True
                else:
                    self._unknown.append(word)
                return
            if flag.alone and not letters.startswith("="):
                self._set(flag, flag.alone)
                continue
            self._set(flag, letters.removeprefix("=") if letters else _following(f"-{letter}", rest))
            return

    def _set(self, flag: Flag, text: str) -> None:
        try:
            value = flag.read(text)
        except ValueError as error:
            raise UsageError(f"invalid value for --{flag.name}: {error}") from None
        if flag.is_repeatable:
            # The first use replaces the default, later ones add to it.
            before = self._values[flag.attribute] if flag.attribute in self._given else ()
            value = (*before, value)
        self._values[flag.attribute] = value
        self._given.add(flag.attribute)


def _following(name: str, rest: list[str]) -> str:
    if not rest:
        raise UsageError(f"flag needs an argument: {name}")
    return rest.pop(0)
