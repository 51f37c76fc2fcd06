"""The two real counterparts of the package's tests: gRPC's own server and client, and our server on a Unix socket."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from pilot_agent.http2.call import Call
from pilot_agent.http2.client import ClientConnection
from pilot_agent.http2.connect import connect
from pilot_agent.http2.connection import Config
from pilot_agent.http2.server import Server, ServerStream
from pilot_agent.http2.stream import Receiver
from pilot_agent.values import HostPort
from tests.support.ports import free_port

HOST = "127.0.0.1"
SERVICE = "test.Service"
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
WANTS_ALL = Config(largest_message=None)
DEFAULTS = Config()

Method = Callable[[Any, Any], Any]


def path(method: str) -> str:
    return f"/{SERVICE}/{method}"


@asynccontextmanager
async def grpc_server(
    methods: Mapping[str, Method], port: int = 0, credentials: Any = None, options: Any = ()
) -> AsyncIterator[HostPort]:
    """Of stream-stream methods."""
    server = grpc.aio.server(options=[*UNLIMITED, ("grpc.so_reuseport", 0), *options])
    made: Any = {name: grpc.stream_stream_rpc_method_handler(each) for name, each in methods.items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, made),))
    where = f"{HOST}:{port}"
    found = server.add_insecure_port(where) if credentials is None else server.add_secure_port(where, credentials)
    await server.start()
    try:
        yield HostPort(HOST, found)
    finally:
        await server.stop(None)
        await settle()


async def settle() -> None:
    """gRPC's own tasks end a little after it."""
    tasks = [each for each in asyncio.all_tasks() if _is_of_grpc(each.get_coro())]
    if tasks:
        await asyncio.wait(tasks, timeout=1)


def _is_of_grpc(coroutine: Any) -> bool:
    code = getattr(coroutine, "cr_code", None)
    return type(coroutine).__module__.startswith("_cython") or (code is not None and "/grpc/aio/" in code.co_filename)


@asynccontextmanager
async def connected(address: HostPort, config: Config = WANTS_ALL, **more: Any) -> AsyncIterator[ClientConnection]:
    connection = await connect(address, config, **more)
    try:
        yield connection
    finally:
        connection.abort()
        await asyncio.sleep(0)


@asynccontextmanager
async def our_server(
    directory: Path, serve: Callable[[Call], Awaitable[None]], config: Config = DEFAULTS, method: str = "Any"
) -> AsyncIterator[tuple[Server, str]]:
    """`serve` runs as a task for each stream; the socket's name for gRPC."""
    tasks: set[asyncio.Task[None]] = set()

    async def guarded(call: Call) -> None:
        await serve(call)

    def handler(stream: ServerStream) -> Receiver:
        call = Call.of(stream)
        task = asyncio.ensure_future(guarded(call))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return call

    server = Server({path(method): handler}, config)
    name = directory / "s"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(name))
        listening.listen()
        listening.setblocking(False)
        await server.start(listening)
        try:
            yield server, f"unix:{name}"
        finally:
            await server.close(0.5)
            for task in list(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def grpc_client(target: str, *options: Any) -> AsyncIterator[Callable[..., Any]]:
    """Opens stream-stream calls of bytes."""
    own = [*UNLIMITED, ("grpc.use_local_subchannel_pool", 1), *options]
    async with grpc.aio.insecure_channel(target, options=own) as channel:
        yield lambda method="Any", **more: channel.stream_stream(path(method))(**more)
    await settle()


async def echo(call: Call) -> None:
    while (message := await call.read()) is not None:
        await call.write(message)
    if call.status is None:
        call.end()


async def grpc_echo(_requests: Any, context: Any) -> None:
    while (message := await context.read()) is not grpc.aio.EOF:
        await context.write(message)


def unused_address() -> HostPort:
    return HostPort(HOST, free_port())
