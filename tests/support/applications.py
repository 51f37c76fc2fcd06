"""Real applications for an agent to stand in front of: `app_server.py` in a process of its own."""

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

PROGRAM = Path(__file__).with_name("app_server.py")


class Application(NamedTuple):
    name: str
    port: int

    def ask(self, path: str) -> str:
        """Past the proxy, on the application's own port."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return str(answer.read().decode())


@contextmanager
def application(name: str = "app", *prefix: str, host: str = "127.0.0.1") -> Iterator[Application]:
    """Run one for as long as the block does, behind the command `prefix` if given."""
    argv = [*prefix, sys.executable, "-IS", str(PROGRAM), host, name]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield Application(name, int(process.stdout.readline()))
        finally:
            process.kill()
