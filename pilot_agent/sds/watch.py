"""The rules of one SDS stream: which names are to be answered, and when (reference security-xds.md, section 2.3).

Pure but for the slots it listens to: no gRPC, no waiting. `stream` feeds it requests and sends what it says.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from pilot_agent.errors import IdentityError
from pilot_agent.identity.slots import Secret, Slot


class Names(Protocol):
    """Who knows what names stand for; `identity.secrets.Secrets`."""

    def slot(self, name: str) -> Slot:
        """Raises IdentityError for a name there is not."""

    def take_back(self, name: str) -> None: ...


class NoSecret(Exception):
    """A name that can't be answered, and why. `is_unknown`: it never can."""

    def __init__(self, name: str, cause: str, *, is_unknown: bool = False) -> None:
        super().__init__(f"failed to generate secret for {name}: {cause}")
        self.is_unknown = is_unknown


@dataclass(slots=True)
class _Watched:
    """`failures`: of the slot when the name was asked for, or last answered; one more ends the stream."""

    slot: Slot
    failures: int
    sent: str | None = None


class Watch:
    """The names of one stream. `changed` is called when `due` may say something new."""

    def __init__(self, names: Names, changed: Callable[[], None]) -> None:
        self._names, self._changed = names, changed
        self._watched: dict[str, _Watched] = {}
        self._batch: set[str] = set()

    @property
    def watched(self) -> set[str]:
        return set(self._watched)

    def begin(self, names: Iterable[str]) -> None:
        """Watch these names and no others, and answer them all, together. Raises NoSecret."""
        wanted = list(dict.fromkeys(names))
        self.remove(self.watched - set(wanted))
        for name in wanted:
            if name in self._watched:
                self._watched[name].sent = None
        self._batch.clear()
        self.add(wanted)
        self._batch.update(wanted)

    def change(self, names: Iterable[str]) -> None:
        """Watch these names and no others; only those that are new are answered. Raises NoSecret."""
        wanted = set(names)
        self.remove(self.watched - wanted)
        added = [name for name in dict.fromkeys(names) if name not in self._watched]
        self.add(added)
        self._batch.update(added)

    def add(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self._watched:
                slot = self._slot(name)
                self._watched[name] = _Watched(slot, slot.failures)
                slot.listen(self._changed)
            else:
                self._watched[name].failures = self._watched[name].slot.failures

    def _slot(self, name: str) -> Slot:
        try:
            return self._names.slot(name)
        except IdentityError as error:
            raise NoSecret(name, str(error), is_unknown=True) from None

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            found = self._watched.pop(name, None)
            self._batch.discard(name)
            if found is not None:
                found.slot.forget(self._changed)
                self._names.take_back(name)

    def has(self, name: str, version: str) -> None:
        """The client says that it has this version: it is sent only what differs."""
        if name in self._watched:
            self._watched[name].sent = version
            self._batch.discard(name)

    def due(self) -> list[tuple[str, Secret]]:
        """What is to be sent now, as one response. Raises NoSecret when a name failed since it was asked for.

        What was asked for together is answered together; what changed later goes by itself.
        """
        for name, each in self._watched.items():
            if each.slot.secret is None and each.slot.failures > each.failures:
                raise NoSecret(name, each.slot.problem or "no reason is known")
        if self._batch:
            batch = [(name, each) for name, each in self._watched.items() if name in self._batch]
            if all(each.slot.secret is not None for _, each in batch):
                self._batch.clear()
                return [self._answered(name, each) for name, each in batch]
        for name, each in self._watched.items():
            if name not in self._batch and each.slot.secret is not None and each.slot.secret.version != each.sent:
                return [self._answered(name, each)]
        return []

    def close(self) -> None:
        self.remove(self.watched)

    @staticmethod
    def _answered(name: str, each: _Watched) -> tuple[str, Secret]:
        assert each.slot.secret is not None
        each.sent, each.failures = each.slot.secret.version, each.slot.failures
        return name, each.slot.secret
