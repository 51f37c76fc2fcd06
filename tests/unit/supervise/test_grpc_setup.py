"""Children are spawned beside running gRPC streams: none may die before it executes its program."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.agents import PROJECT

SPAWN = """
import asyncio, os, sys
from pilot_agent.supervise.grpc_setup import set_up_grpc
set_up_grpc({"GRPC_SSL_CIPHER_SUITES": "HIGH"})
import grpc
from pilot_agent.clock import SystemClock
from pilot_agent.envoy.command import Launch
from pilot_agent.envoy.process import Child

async def echo(_requests, context):
    while (message := await context.read()) is not grpc.aio.EOF:
        await context.write(message)

async def main():
    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.B", {"C": handler}),))
    server.add_insecure_port(f"unix:{sys.argv[1]}")
    await server.start()
    channel = grpc.aio.insecure_channel(f"unix:{sys.argv[1]}")
    call = channel.stream_stream("/a.B/C")()

    async def chat():
        while True:
            await call.write(b"x" * 1000)
            await call.read()

    chatting = asyncio.create_task(chat())
    ends = []
    for _ in range(100):
        await asyncio.sleep(0.001)
        ends.append(Child(Launch(["/bin/true"], {}, None), SystemClock(), is_quiet=True).wait())
    print([end for end in ends if end != (0, "")])
    print(os.environ["GRPC_SSL_CIPHER_SUITES"])
    sys.stdout.flush()
    os._exit(0)

asyncio.run(main())
"""


def test_no_child_dies_of_grpcs_handlers_around_fork(tmp_path: Path) -> None:
    script = tmp_path / "spawn.py"
    script.write_text(SPAWN)
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, str(script), "s"]
    found = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert found.stdout == "[]\nHIGH\n", found.stderr
