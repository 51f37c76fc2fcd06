"""Measures probes of the application through port 15020: as many as go, then 1,000 a second for half a minute.

The status port and the application each run in a process of their own, as in a pod; every probe is a new connection to
the application. `python -m bench.probes` prints a table, `run()` gives the numbers to `make bench`.
"""

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

PATH = "/app-health/app/livez"
RATE = 1000
SECONDS = 30.0
CONNECTIONS = 8
UNPACED = 4000

_PROBE = f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1:15020\r\nUser-Agent: kube-probe/1.34\r\nAccept: */*\r\n\r\n".encode()
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


class _Application(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:  # noqa: ARG002
        self._transport.write(_ANSWER)
        self._transport.close()


def serve_application(_: int) -> None:
    """Prints its port."""

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(_Application, "127.0.0.1", 0, backlog=1024)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    asyncio.run(serve())


def serve_status(application: int) -> None:
    """The agent's status port with one prober; prints its port."""
    from bench.scrape import _NoControl
    from pilot_agent.clock import SystemClock
    from pilot_agent.log import Log, LogOptions
    from pilot_agent.metrics.own import AgentFacts
    from pilot_agent.metrics.scrape import Scraper
    from pilot_agent.status.port import StatusServer
    from pilot_agent.status.probe_config import parse_probers
    from pilot_agent.status.probes import AppProbes, ProbeOptions
    from pilot_agent.status.readiness import Readiness
    from pilot_agent.status.sockets import bind

    log, clock, sock = Log(LogOptions(targets=("stderr",), levels="warn")).scope(), SystemClock(), bind(0)
    text = json.dumps({PATH: {"httpGet": {"port": application, "path": "/healthz"}, "timeoutSeconds": 1}})
    options = ProbeOptions("127.0.0.1", 15020, legacy_localhost=False, keepalive=False, http2=True, log=log)
    probes = AppProbes(parse_probers(text, 15020)[0], options)
    scraper = Scraper(AgentFacts, None, [], log)

    async def serve() -> None:
        server = StatusServer(sock, Readiness([], log, clock), scraper, _NoControl(), log, clock, probes=probes)
        await server.start()
        server.preload()
        print(sock.getsockname()[1], flush=True)
        await asyncio.Event().wait()

    asyncio.run(serve())


@contextlib.contextmanager
def served(role: str, argument: int) -> Iterator[tuple[int, int]]:
    """Its pid and port."""
    argv = [sys.executable, "-m", "bench.probes", role, str(argument)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.pid, int(process.stdout.readline())
        finally:
            process.kill()


class _Caller:
    """Kept connections to the status port, as many probes under way."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.seconds: list[float] = []
        self.failed = 0

    async def run(self, count: int, rate: float | None) -> None:
        """`count` probes in all, one starting every 1/`rate` s, or as soon as the one before is done."""
        started = time.perf_counter()
        turns = iter(range(count))

        async def call() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            for turn in turns:
                if rate is not None:
                    await asyncio.sleep(max(0.0, started + turn / rate - time.perf_counter()))
                sent = time.perf_counter()
                writer.write(_PROBE)
                head = await reader.readuntil(b"\r\n\r\n")
                is_fine = head.startswith(b"HTTP/1.1 200 ") and await reader.readexactly(2) == b"ok"
                self.seconds.append(time.perf_counter() - sent)
                self.failed += not is_fine
            writer.close()
            await writer.wait_closed()

        await asyncio.gather(*(call() for _ in range(CONNECTIONS)))


def _cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def run() -> dict[str, float]:
    """Probes a second, milliseconds, the share of one CPU, and descriptors left over, by name."""
    with served("application", 0) as (_, app_port), served("status", app_port) as (pid, port):
        asyncio.run(_Caller(port).run(100, None))  # loads aiohttp and h11
        time.sleep(1.0)  # the caller's own connections are seen to be closed
        before = _descriptors(pid)
        started = time.perf_counter()
        asyncio.run(_Caller(port).run(UNPACED, None))
        unpaced = UNPACED / (time.perf_counter() - started)
        caller, cpu, started = _Caller(port), _cpu_seconds(pid), time.perf_counter()
        asyncio.run(caller.run(round(RATE * SECONDS), RATE))
        took = time.perf_counter() - started
        cpu = _cpu_seconds(pid) - cpu
        time.sleep(1.0)
        cuts = statistics.quantiles(caller.seconds, n=100)
        return {
            "app_probes_per_second": unpaced,
            "app_probes_paced_per_second": len(caller.seconds) / took,
            "app_probes_paced_p50_ms": cuts[49] * 1e3,
            "app_probes_paced_p99_ms": cuts[98] * 1e3,
            "app_probes_paced_cpu_share": cpu / took,
            "app_probes_failed": float(caller.failed),
            "app_probes_descriptors_left": float(_descriptors(pid) - before),
        }


def main() -> None:
    roles = {"application": serve_application, "status": serve_status}
    if len(sys.argv) == 3:
        roles[sys.argv[1]](int(sys.argv[2]))
        return
    for name, value in run().items():
        print(f"{name:32} {value:12.4f}")


if __name__ == "__main__":
    main()
