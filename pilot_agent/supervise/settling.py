"""Waiting until Envoy has what was published: the mesh asks before it takes away what Envoy might still use.

Envoy reads the files of one publication in whichever order it hears of them: a route may be there before its cluster,
and a cluster gone before the route. Called by the publisher, in the thread of the reload; it has no state.
"""

import socket
import time

MOST_SECONDS = 1.0
"""For a version that Envoy refuses, or a cluster whose name nobody resolves: what is published then is as before."""
STEP_SECONDS = 0.002
_MANAGERS = {"cds": "cluster_manager", "lds": "listener_manager"}
_LARGEST_ANSWER = 64 * 1024


class Settling:
    """`settling("cds", version)` returns when Envoy uses that version, has none to tell, or does not answer."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)

    def __call__(self, kind: str, version: str) -> None:
        deadline = time.monotonic() + MOST_SECONDS
        manager = _MANAGERS[kind]
        names = rf"^{manager}\.({kind}\.version_text|warming_clusters|total_listeners_warming)$"
        while time.monotonic() < deadline:
            try:
                found = dict(line.split(": ", 1) for line in self._ask(f"/stats?filter={names}").splitlines())
            except (OSError, ValueError):
                return  # before Envoy's start, or after its end, nothing is in use
            shown = found.pop(f"{manager}.{kind}.version_text", None)
            if shown is None or (shown == f'"{version}"' and not any(count != "0" for count in found.values())):
                return
            time.sleep(STEP_SECONDS)

    def _ask(self, path: str) -> str:
        with socket.create_connection(self._address, timeout=MOST_SECONDS) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            data = b""
            while len(data) < _LARGEST_ANSWER and (part := connection.recv(_LARGEST_ANSWER)):
                data += part
        from pilot_agent.envoy.admin import parse_answer  # imports asyncio, and before Envoy's start nobody answers

        status, body = parse_answer(data)
        if status != 200:
            raise ValueError(status)
        return body.decode()
