"""Measures port 15020: merged scrapes of three sizes with the agent's memory, from an application and from Envoy, as
they are and compressed; many at once for a while; and readiness requests a second.

The status port and the application each run in a process of their own, as in a pod; the scraper is this process.
`python -m bench.scrape` prints a table, `run()` gives the numbers to `make bench`.
"""

import asyncio
import contextlib
import os
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

SIZES_MB = (0.06, 2.0, 20.0)
REPEATS = 7
PROBES_PER_CONNECTION = 5000
CONNECTIONS = 4
SCRAPES_AT_ONCE = 64
ENDURANCE_SECONDS = 30.0

_READY = b"GET /healthz/ready HTTP/1.1\r\nHost: 127.0.0.1:15020\r\nUser-Agent: kube-probe/1.34\r\nAccept: */*\r\n\r\n"
_SCRAPE = (
    b"GET /stats/prometheus HTTP/1.1\r\nHost: 127.0.0.1:15020\r\nAccept: */*\r\n"
    b"X-Prometheus-Scrape-Timeout-Seconds: 10\r\nConnection: close\r\n%b\r\n"
)
_GZIP = b"Accept-Encoding: gzip\r\n"


def exposition(size: int) -> bytes:
    """At least `size` bytes of valid text: histograms with labels, as a real application has them."""
    lines, length, family = [], 0, 0
    while length < size:
        name = f"app_request_{family}_seconds"
        block = f"# HELP {name} Time of request kind {family}.\n# TYPE {name} histogram\n"
        block += "".join(
            f'{name}_bucket{{method="GET",route="/api/v1/items/{family}",le="{bound}"}} {family * 31 + bound}\n'
            for bound in range(1, 40)
        )
        block += f'{name}_bucket{{method="GET",le="+Inf"}} {family}\n{name}_sum {family}\n{name}_count {family}\n'
        lines.append(block)
        length += len(block)
        family += 1
    return "".join(lines).encode()


def serve_application(size: int) -> None:
    """An application with `size` bytes of metrics on a free port, which it prints."""
    body = exposition(size)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n"
    answer = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_answer, args=(connection, answer), daemon=True).start()


def _answer(connection: socket.socket, answer: bytes) -> None:
    with connection, contextlib.suppress(OSError):
        received = b""
        while b"\r\n\r\n" not in received:
            if not (data := connection.recv(65536)):
                return
            received += data
        connection.sendall(answer)


def serve_status(application: int) -> None:
    """The agent's status port, ready, merging its own metrics and the application's; prints its port."""
    _serve(application, is_envoy=False)


def serve_status_of_envoy(envoy: int) -> None:
    """The same with an Envoy and no application."""
    _serve(envoy, is_envoy=True)


def _serve(source: int, *, is_envoy: bool) -> None:
    from pilot_agent.clock import SystemClock
    from pilot_agent.log import Log, LogOptions
    from pilot_agent.metrics.annotations import AppTarget
    from pilot_agent.metrics.own import AgentFacts
    from pilot_agent.metrics.scrape import Scraper
    from pilot_agent.status.port import StatusServer
    from pilot_agent.status.readiness import Readiness
    from pilot_agent.status.sockets import bind
    from pilot_agent.values import HostPort

    log = Log(LogOptions(targets=("stderr",), levels="warn")).scope()
    clock = SystemClock()
    sock = bind(0)
    envoy = HostPort("127.0.0.1", source) if is_envoy else None
    scraper = Scraper(AgentFacts, envoy, [] if is_envoy else [AppTarget(source, "/metrics")], log)

    async def serve() -> None:
        server = StatusServer(sock, Readiness([], log, clock), scraper, _NoControl(), log, clock)
        await server.start()
        server.preload()
        print(sock.getsockname()[1], flush=True)
        await asyncio.Event().wait()

    asyncio.run(serve())


class _NoControl:
    async def drain(self) -> str:
        return "OK"

    def quit(self) -> str:
        return "OK"


class Server:
    """A part of the benchmark in a process of its own."""

    def __init__(self, role: str, argument: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.scrape", role, str(argument)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def memory_kib(self, field: str) -> int:
        """`VmRSS` now, or `VmHWM`, the highest since `forget_peak`."""
        with open(f"/proc/{self.process.pid}/status") as status:
            found = re.search(rf"^{field}:\s+(\d+) kB", status.read(), re.MULTILINE)
        assert found is not None
        return int(found[1])

    def forget_peak(self) -> None:
        with open(f"/proc/{self.process.pid}/clear_refs", "w") as clear_refs:
            clear_refs.write("5")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextlib.contextmanager
def served(role: str, argument: int) -> Iterator[Server]:
    server = Server(role, argument)
    try:
        yield server
    finally:
        server.close()


def scrape(port: int, headers: bytes = b"") -> tuple[float, int]:
    """Seconds and bytes of one merged scrape."""
    started, received = time.perf_counter(), 0
    buffer = bytearray(1 << 18)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(_SCRAPE % headers)
        while count := connection.recv_into(buffer):
            received += count
    return time.perf_counter() - started, received


def probe(port: int, count: int) -> None:
    """`count` readiness requests, one after the other, on one connection."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            connection.sendall(_READY)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def probes_per_second(port: int) -> float:
    """Over four kept connections, each in a process of its own: threads would measure our own interpreter lock."""
    started = time.perf_counter()
    children = []
    for _ in range(CONNECTIONS):
        if (child := os.fork()) == 0:
            status = 1
            with contextlib.suppress(BaseException):
                probe(port, PROBES_PER_CONNECTION)
                status = 0
            os._exit(status)
        children.append(child)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    if any(statuses):
        raise RuntimeError("a readiness request failed")
    return CONNECTIONS * PROBES_PER_CONNECTION / (time.perf_counter() - started)


def endure(port: int, seconds: float) -> int:
    """How many scrapes `SCRAPES_AT_ONCE` scrapers got in `seconds`, each one after the other."""
    end, counts = time.monotonic() + seconds, [0] * SCRAPES_AT_ONCE

    def scrape_on(number: int) -> None:
        while time.monotonic() < end:
            # An answer of less is a refusal: the port may not have seen yet that the last scrape is over.
            counts[number] += scrape(port)[1] > 50_000

    threads = [threading.Thread(target=scrape_on, args=(number,)) for number in range(SCRAPES_AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts)


def _endurance() -> dict[str, float]:
    with served("application", 60_000) as application, served("status", application.port) as status:
        endure(status.port, 2.0)  # what 64 connections need at once is no growth
        rest = status.memory_kib("VmRSS")
        count = endure(status.port, ENDURANCE_SECONDS)
        return {
            "scrape_64_at_once_per_second": count / ENDURANCE_SECONDS,
            "scrape_64_at_once_growth_kib": status.memory_kib("VmRSS") - rest,
        }


def _variants(size: float) -> dict[str, float]:
    """Envoy's metrics instead of an application's, and the application's compressed."""
    figures = {}
    for name, role, headers in (("envoy", "status-of-envoy", b""), ("gzip", "status", _GZIP)):
        with served("application", round(size * 1e6)) as source, served(role, source.port) as status:
            scrape(status.port)
            results = [scrape(status.port, headers) for _ in range(REPEATS)]
            figures[f"scrape_{size:g}mb_{name}_ms"] = statistics.median(seconds for seconds, _ in results) * 1e3
    return figures


def run() -> dict[str, float]:
    """Milliseconds, KiB and requests a second by name."""
    figures: dict[str, float] = {}
    for size in SIZES_MB:
        figures |= _variants(size)
        with served("application", round(size * 1e6)) as application, served("status", application.port) as status:
            scrape(status.port)  # loads aiohttp
            status.forget_peak()
            rest = status.memory_kib("VmRSS")
            results = [scrape(status.port) for _ in range(REPEATS)]
            if min(length for _, length in results) < size * 1e6:
                raise RuntimeError("the application's part is missing")
            figures[f"scrape_{size:g}mb_ms"] = statistics.median(seconds for seconds, _ in results) * 1e3
            figures[f"scrape_{size:g}mb_rest_kib"] = rest
            figures[f"scrape_{size:g}mb_peak_kib"] = status.memory_kib("VmHWM")
    figures |= _endurance()
    with served("application", 1000) as application, served("status", application.port) as status:
        scrape(status.port)
        figures["ready_per_second"] = probes_per_second(status.port)
    return figures


def main() -> None:
    roles = {"application": serve_application, "status": serve_status, "status-of-envoy": serve_status_of_envoy}
    if len(sys.argv) == 3:
        roles[sys.argv[1]](int(sys.argv[2]))
        return
    for name, value in run().items():
        print(f"{name:30} {value:12.1f}")


if __name__ == "__main__":
    main()
