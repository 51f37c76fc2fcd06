"""A gRPC server behind a socket that has been listening since before Envoy was spawned.

gRPC can't adopt a listening socket, so it serves a private one beside it, and a relay passes connections on. Imports
grpc: whoever serves something imports this late.
"""

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc

from pilot_agent.log import Scope
from pilot_agent.uds.listener import Listener, behind, check_length
from pilot_agent.uds.relay import Relay

LAST_WORDS_S = 0.5


async def serve_behind(
    listener: Listener, handlers: Any, options: Sequence[tuple[str, int]], log: Scope, what: str
) -> None:
    """Serve `handlers` (a generic handler) on `listener` until cancelled. It may be called again.

    Raises RuntimeError, OSError or SettingsError when gRPC can't have a socket of its own beside it.
    """
    private = behind(listener.path, os.getpid())
    check_length(private, what)
    relay = Relay(listener, log)
    server = grpc.aio.server(options=list(options))
    server.add_generic_rpc_handlers((handlers,))
    private.unlink(missing_ok=True)  # gRPC refuses what is no socket
    with _umask(0o177):
        server.add_insecure_port(f"unix:{private}")
    try:
        await server.start()
        await relay.start(private)
        log.info(f"{what} listens on {listener.path}")
        await asyncio.Event().wait()
    finally:
        await relay.stop()
        await server.stop(LAST_WORDS_S)  # the connections are cut: it only waits for the streams to notice
        await _settle()
        private.unlink(missing_ok=True)


async def _settle() -> None:
    """gRPC's own tasks end a little after its server has stopped; cut off by the end of the loop, they would complain
    in the log."""
    tasks = [each for each in asyncio.all_tasks() if type(each.get_coro()).__module__.startswith("_cython")]
    if tasks:
        await asyncio.wait(tasks, timeout=LAST_WORDS_S)


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    """gRPC makes its socket by the umask: nobody but us may connect to it past the relay."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)
