"""Spawning the child for keys and certificates, with nothing imported that Envoy's own spawn has not: it is to run its
imports beside the agent's. `crypto_child` speaks with it.
"""

import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

_CODE = (
    "import sys; sys.path[:] = sys.argv[1:]; from pilot_agent.identity.crypto_server import serve as _serve; _serve()"
)


class Spawned(NamedTuple):
    """A child that runs, and our end of the socket that is its input and output. Both are to be closed."""

    process: "subprocess.Popen[bytes]"
    socket: socket.socket


def command() -> list[str]:
    """Our interpreter with our path: without `site`, whose files were read once already."""
    cached = ["-B"] if sys.dont_write_bytecode else []
    return [sys.executable, "-I", "-S", *cached, "-c", _CODE, *sys.path]


def spawn(argv: Sequence[str] | None = None) -> Spawned:
    """Raises OSError."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            end = theirs.fileno()
            # In a group of its own: a terminal's Ctrl-C is for the agent, which ends it when it has done with it.
            return Spawned(
                subprocess.Popen(list(argv or command()), stdin=end, stdout=end, process_group=0),
                ours,
            )
    except BaseException:
        ours.close()
        raise
