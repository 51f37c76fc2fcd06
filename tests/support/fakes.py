"""The Python side of `fake_envoy.py`: its environment, its switches, and what it wrote down."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("fake_envoy.py")


def _installed(path: Path) -> Path:
    """An executable copy that starts this very interpreter: `env python3` may be a version manager's slow script."""
    interpreter = getattr(sys, "_base_executable", sys.executable)
    path.write_text(f"#!{interpreter} -IS\n" + PROGRAM.read_text())
    path.chmod(0o755)
    return path


class FakeEnvoy:
    """One fake Envoy (with all its restarts) whose record and switches live in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.binary = _installed(directory / "fake-envoy")
        self.record = directory / "fake-envoy.jsonl"
        self.switches = directory / "fake-envoy-switches.json"

    @property
    def environment(self) -> dict[str, str]:
        """To be added to the environment of the agent."""
        return {"FAKE_ENVOY_RECORD": str(self.record), "FAKE_ENVOY_SWITCHES": str(self.switches)}

    def switch(self, **switches: object) -> None:
        """How every start from now on behaves; the switches marked so in fake_envoy.py act at once."""
        self._publish(switches)

    def sequence(self, *starts: dict[str, Any]) -> None:
        """One set of switches per start; the last one stays."""
        self._publish(list(starts))

    def _publish(self, content: object) -> None:
        fresh = self.switches.with_suffix(".fresh")
        fresh.write_text(json.dumps(content))
        fresh.replace(self.switches)

    def events(self, *names: str) -> list[dict[str, Any]]:
        """What was written down so far, in order; only these events where any are named."""
        try:
            lines = self.record.read_text().splitlines()
        except FileNotFoundError:
            return []
        # The last line may be half written while we read.
        events = [json.loads(line) for line in lines if line.endswith("}")]
        return [event for event in events if not names or event["event"] in names]

    @property
    def starts(self) -> list[dict[str, Any]]:
        return self.events("start")

    def requests(self) -> list[str]:
        """`METHOD path` of every admin request that was not a GET."""
        return [f"{event['method']} {event['path']}" for event in self.events("request")]

    def flag(self, start: dict[str, Any], name: str) -> str | None:
        """The value of a flag in the argv of one start; None where the flag is missing."""
        argv: Sequence[str] = start["argv"]
        return argv[argv.index(name) + 1] if name in argv else None
