"""File-based SDS for local mode: each secret in a file that Envoy watches, key and chain in one, replaced at once.

Envoy reads them with `path_config_source`; the agent needs neither gRPC nor protobuf for it.
"""

import json
from collections.abc import Callable
from pathlib import Path

from pilot_agent.files.publish import publish
from pilot_agent.identity.slots import Slot
from pilot_agent.log import Scope
from pilot_agent.sds.resources import SECRET_TYPE, Provider, resource

MODE = 0o600
"""It holds the private key; it belongs to whom Envoy runs as."""


class SecretFiles:
    """Keeps `<directory>/<name>.json` of every slot. `problem` is what the last write failed with."""

    def __init__(self, directory: Path, owner: int | None, provider: Callable[[], Provider | None], log: Scope) -> None:
        self._directory, self._owner, self._provider, self._log = directory, owner, provider, log
        self._slots: dict[str, Slot] = {}
        self._written: dict[str, str] = {}
        self.problem: str | None = None

    def path(self, name: str) -> Path:
        return self._directory / f"{name}.json"

    def make_place(self, names: tuple[str, ...]) -> None:
        """Files without a secret yet: Envoy refuses a configuration that names a file there is not. Raises OSError."""
        self._directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        for name in names:
            publish(self.path(name), _document("", []), MODE, self._owner)

    def serve(self, slot: Slot) -> None:
        """Write it now where there is a secret, and after every change."""
        self._slots[slot.name] = slot
        slot.listen(self.write)
        self.write()

    def write(self) -> None:
        """Write what differs; what can't be written is said, and tried again at the next call."""
        problem = None
        for name, slot in self._slots.items():
            secret = slot.secret
            if secret is None or self._written.get(name) == secret.version:
                continue  # an expired certificate is no worse than none
            content = _document(secret.version, [{"@type": SECRET_TYPE, **resource(name, secret, self._provider())}])
            try:
                publish(self.path(name), content, MODE, self._owner)
            except OSError as error:
                problem = f"{self.path(name)} can't be written: {error.strerror}"
            else:
                self._written[name] = secret.version
        if problem is not None and problem != self.problem:
            self._log.error(problem)
        self.problem = problem

    def remove(self) -> None:
        """Take away what was made."""
        for slot in self._slots.values():
            slot.forget(self.write)
        for path in self._directory.glob("*.json"):
            path.unlink(missing_ok=True)
        try:
            self._directory.rmdir()
        except OSError:
            pass  # never made, or not ours alone


def _document(version: str, resources: list[dict[str, object]]) -> bytes:
    """A DiscoveryResponse."""
    return json.dumps({"version_info": version, "resources": resources}, separators=(",", ":")).encode()
