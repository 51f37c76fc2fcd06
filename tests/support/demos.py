"""`pilot-agent demo` as a process of its own: what it says so far, its end, and what it may have left behind."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile

from pilot_agent.demo.network import ETC, NAMESPACES, PREFIX
from pilot_agent.demo.process import User, is_open_to_others
from tests.support.envoy_binary import envoy_binary
from tests.support.eventually import eventually

COMMAND = (sys.executable, "-m", "pilot_agent.commands.main", "demo")
NOBODY = 65534


class Demo:
    """Runs in `temporary`, its own directory for temporary files. A context: killed behind it if it still runs."""

    def __init__(self, temporary: Path, *flags: str, prefix: Sequence[str] = ()) -> None:
        envoy_binary()
        self.temporary = temporary
        self._output = TemporaryFile("w+b")  # noqa: SIM115 - closed by __exit__
        env = os.environ | {"TMPDIR": str(temporary)}
        argv = [*prefix, *COMMAND, *flags]
        self.process = subprocess.Popen(argv, env=env, stdout=self._output, stderr=subprocess.STDOUT)

    def __enter__(self) -> "Demo":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(30)
        self._output.close()

    @property
    def output(self) -> str:
        return os.pread(self._output.fileno(), 1 << 20, 0).decode()

    def until_said(self, text: str) -> None:
        eventually(lambda: text in self.output or self.process.poll() is not None, within=60)
        assert text in self.output, self.output

    def wait(self) -> int:
        return self.process.wait(100)

    def left_behind(self) -> list[str]:
        """Files and namespaces; processes are the leak checker's to find."""
        found = [str(path) for path in self.temporary.iterdir()]
        for directory in (NAMESPACES, ETC):
            found += [str(path) for path in directory.glob(f"{PREFIX}-{self.process.pid}*")]
        return found


def unprivileged() -> list[str]:
    """In front of a command: nobody runs it, who may read this checkout wherever it lies."""
    if os.geteuid() != 0:
        return []
    reading = () if is_open_to_others() else ("dac_read_search",)
    return User(NOBODY, NOBODY, reading).wrapped([])


def open_to_all(directory: Path) -> Path:
    """So that nobody may write there."""
    for each in (directory, *directory.parents):
        each.chmod(each.stat().st_mode | 0o011) if os.access(each, os.W_OK) else None
    directory.chmod(0o777)
    return directory
