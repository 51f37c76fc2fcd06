"""The SDS server in an event loop of its own thread, with slots that the test fills."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pilot_agent.errors import IdentityError
from pilot_agent.identity.certificate import check_pair
from pilot_agent.identity.slots import Secret, Slot, key_pair, validation
from pilot_agent.sds.account import SdsAccount
from pilot_agent.sds.resources import Provider
from pilot_agent.sds.server import SdsServer
from pilot_agent.uds.listener import Listener
from tests.support.authority import Authority
from tests.support.looped import Looped
from tests.support.recorded_log import RecordedLog

Result = TypeVar("Result")
AUTHORITY = Authority("sds root")


def pair(name: str = "spiffe://cluster.local/ns/foo/sa/bar") -> Secret:
    made = AUTHORITY.pair(name)
    chain, key = made.chain.encode(), made.key.encode()
    return key_pair(chain, key, check_pair(chain, key, "the test's certificate", time.time()))


def roots() -> Secret:
    return validation(AUTHORITY.pem.encode())


class Slots:
    """`default`, `ROOTCA` and whatever a test adds; other names are refused."""

    def __init__(self) -> None:
        self.slots = {name: Slot(name) for name in ("default", "ROOTCA")}
        self.taken_back: list[str] = []

    def slot(self, name: str) -> Slot:
        if name not in self.slots:
            raise IdentityError("unknown_name", "unknown name")
        return self.slots[name]

    def take_back(self, name: str) -> None:
        self.taken_back.append(name)


class Served:
    """Runs from its creation until `stop`."""

    def __init__(self, directory: Path, provider: Provider | None = None) -> None:
        self.path = directory / "sds"
        self.names, self.account, self.log = Slots(), SdsAccount(), RecordedLog()
        self._listener = Listener(self.path, "SDS")
        self._server = SdsServer(self._listener, self.names, lambda: provider, self.account, self.log.scope)
        self._looped = Looped(self._server.run)

    def do(self, work: Callable[[], Result]) -> Result:
        """Run `work` in the server's loop, where slots belong to."""
        return self._looped.do(work)

    def offer(self, name: str, secret: Secret) -> None:
        self.do(lambda: self.names.slots[name].offer(secret))

    def listeners(self, name: str) -> int:
        return self.do(lambda: self.names.slots[name].listeners)

    def stop(self) -> None:
        self._looped.stop()
        self._listener.close()
