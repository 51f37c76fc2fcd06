"""A network namespace whose traffic is captured with the flags of a recording, and what its rules have counted."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from pilot_agent.interception.counters import CountedChain, counters
from pilot_agent.interception.execute import Commands
from pilot_agent.interception.run import Interception
from tests.support.namespaces import Namespace
from tests.support.recorded_log import RecordedLog
from tests.unit.interception.recordings import recording

NFT: Final = "nft"
LEGACY: Final = "legacy"
NATIVE: Final = "native"
_WAYS: dict[str, dict[str, Any]] = {
    NFT: {"force_iptables_binary": "nft"},
    LEGACY: {"force_iptables_binary": "legacy"},
    NATIVE: {"native_nftables": True},
}


@contextmanager
def captured(where: Namespace, name: str, back_end: str) -> Iterator[None]:
    """By iptables with either back end, or by native nftables. Afterwards nothing of it is left."""
    _apply(where, name, **_WAYS[back_end])
    try:
        yield
    finally:
        _apply(where, name, cleanup_only=True)


def _apply(where: Namespace, name: str, **more: Any) -> None:
    options = recording(name).options(**more)
    where.call(lambda: Interception(options, Commands(), RecordedLog().scope).apply())


def counted(where: Namespace) -> tuple[CountedChain, ...]:
    return where.call(lambda: counters(Commands()))
