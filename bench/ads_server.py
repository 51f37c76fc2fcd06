"""A control plane in a process of its own, for `bench.mesh`: ADS and a CA, with TLS and without.

Two roles: `services` is the fake istiod's ADS with many services; `pushes` a lean ADS, delta only, that sends what was
serialized before and watches every answer. `Server` starts one; orders go to its stdin and results come from its
stdout, a line of JSON each. It ends with its stdin, so it outlives nobody.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from envoy.service.discovery.v3 import discovery_pb2

from tests.support.fake_ads import CDS, DELTA_METHOD, EDS, HOST, LDS, SERVICE, cluster, endpoints
from tests.support.fake_istiod import SERVER_NAMES, FakeIstiod

OPTIONS = [
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.http2.min_ping_interval_without_data_ms", 15_000),
]
ANSWER_S = 60.0
SERVER_NAME = SERVER_NAMES[0]
THREADS = 16

MOVING = "outbound|80||moving.default.svc.cluster.local"
"""The cluster whose one endpoint each small push moves to another port."""
FIRST_PORT = 10_000
LARGE_CLUSTERS = 2_000

_NONCE = 5
"""The field of a delta response."""


# In the process of the benchmark


class Server:
    """A running one. `secure` and `plain` are its ports, `root_file` what its certificate is checked by."""

    def __init__(self, *role: str) -> None:
        argv = [sys.executable, "-m", "bench.ads_server", *role]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        found = self._answer()
        self.secure, self.plain, self.root_file = found["secure"], found["plain"], Path(found["root_file"])

    @property
    def address(self) -> str:
        return f"localhost:{self.secure}"

    @property
    def plain_address(self) -> str:
        return f"localhost:{self.plain}"

    def order(self, **order: object) -> Any:
        """What it answers. Raises RuntimeError with its words when it failed."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "it has ended"}
        if "error" in answer:
            raise RuntimeError(f"the ADS server of the benchmark: {answer['error']}")
        return answer


@contextmanager
def served(*role: str) -> Iterator[Server]:
    server = Server(*role)
    try:
        yield server
    finally:
        server.close()


# In its own


def serve_services(count: int, listener_port: int, directory: Path) -> None:
    istiod = FakeIstiod(directory)  # never started itself: its TLS ends in Python, which would be what we measure
    istiod.ads.many_services(count, listener_port=listener_port)
    server = grpc.server(ThreadPoolExecutor(THREADS), options=OPTIONS)
    server.add_generic_rpc_handlers((istiod.handlers(), istiod.ads.handlers()))
    ports = _listen(server, istiod, directory)
    server.start()
    _tell(ports)
    sys.stdin.read()
    stopped = server.stop(None)
    istiod.ads.end_now()
    stopped.wait()
    istiod.ads.join()


async def serve_pushes(directory: Path) -> None:
    istiod, ads = FakeIstiod(directory), PushAds()
    server = grpc.aio.server(ThreadPoolExecutor(THREADS), options=OPTIONS)
    server.add_generic_rpc_handlers((istiod.handlers(), ads.handlers()))
    ports = _listen(server, istiod, directory)
    await server.start()
    _tell(ports)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            async with asyncio.timeout(ANSWER_S):
                _tell(await ads.obey(**json.loads(line)))
        except (TimeoutError, RuntimeError) as error:
            _tell({"error": str(error) or "no answer in time"})
    await server.stop(None)


def _listen(server: Any, istiod: FakeIstiod, directory: Path) -> dict[str, Any]:
    pair = istiod.provision(directory, SERVER_NAME)
    credentials = grpc.ssl_server_credentials([(pair.key.encode(), pair.chain.encode())])
    return {
        "secure": server.add_secure_port(f"{HOST}:0", credentials),
        "plain": server.add_insecure_port(f"{HOST}:0"),
        "root_file": str(istiod.root_file),
    }


def _tell(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


class Answer(NamedTuple):
    nonce: str
    error: str
    """Of a NACK."""


class _Stream:
    def __init__(self, context: Any, first: dict[str, bytes]) -> None:
        self._context, self._first = context, first
        self._nonces: set[str] = set()
        self._types: set[str] = set()
        self._number = 0
        self._answers: asyncio.Queue[Answer] = asyncio.Queue()
        self._is_complete = asyncio.Event()

    async def read(self) -> None:
        """Until the client ends; the first request of each type is answered with what there is of it."""
        try:
            while (body := await self._context.read()) is not grpc.aio.EOF:
                await self._take(discovery_pb2.DeltaDiscoveryRequest.FromString(body))
        finally:
            self._answers.put_nowait(Answer("", "the stream has ended"))

    async def _take(self, request: Any) -> None:
        if request.response_nonce in self._nonces:
            self._answers.put_nowait(Answer(request.response_nonce, request.error_detail.message))
        if request.type_url in self._first and request.type_url not in self._types:
            self._types.add(request.type_url)
            await self.send(self._first[request.type_url])
            if len(self._types) == len(self._first):
                self._is_complete.set()

    async def settle(self) -> None:
        """Until the client has accepted what it asked for in the beginning."""
        await self._is_complete.wait()
        for number in range(len(self._first)):
            if (answer := await self._answers.get()).error:
                raise RuntimeError(f"answer {number}, in the beginning: {answer}")

    async def send(self, body: bytes) -> str:
        """The nonce it went with."""
        self._number += 1
        nonce = f"n{self._number}"
        self._nonces.add(nonce)
        await self._context.write(with_nonce(body, nonce))
        return nonce

    async def accepted(self, nonce: str) -> None:
        """Raises RuntimeError when the next answer is another one: lost, out of order, or a refusal."""
        answer = await self._answers.get()
        if answer.error or answer.nonce != nonce:
            raise RuntimeError(f"{nonce} was sent, and the answer is {answer}")


class PushAds:
    """Streams are known by the number that `settle` gives, so that two clients can be pushed to in turn."""

    def __init__(self) -> None:
        self._streams: asyncio.Queue[_Stream] = asyncio.Queue()
        self._settled: list[_Stream] = []
        self._bodies: dict[tuple[int, int], bytes] = {}
        self._first = {
            CDS: response(CDS, {MOVING: cluster(MOVING)}),
            EDS: moved(FIRST_PORT),
            LDS: response(LDS, {}),
        }
        self._orders: dict[str, Callable[..., Any]] = {
            "settle": self.settle,
            "large": self.large,
            "small": self.small,
            "pipelined": self.pipelined,
        }

    def handlers(self) -> Any:
        method: Any = grpc.stream_stream_rpc_method_handler(self._serve)
        return grpc.method_handlers_generic_handler(SERVICE, {DELTA_METHOD: method})

    async def obey(self, order: str, **arguments: Any) -> dict[str, Any]:
        result: dict[str, Any] = await self._orders[order](**arguments)
        return result

    async def _serve(self, _requests: Any, context: Any) -> None:
        stream = _Stream(context, self._first)
        self._streams.put_nowait(stream)
        await stream.read()

    async def settle(self) -> dict[str, Any]:
        """Until the next client has accepted what it asked for in the beginning; the stream's number."""
        stream = await self._streams.get()
        await stream.settle()
        self._settled.append(stream)
        return {"stream": len(self._settled) - 1}

    async def large(self, stream: int, size: int, variant: int) -> dict[str, Any]:
        """Seconds from sending `size` bytes to their ACK. The same variant again is what Envoy has already."""
        to, key = self._settled[stream], (size, variant)
        if key not in self._bodies:
            self._bodies[key] = large_response(size, variant)
        began = time.perf_counter()
        await to.accepted(await to.send(self._bodies[key]))
        return {"seconds": time.perf_counter() - began}

    async def small(self, stream: int, count: int) -> dict[str, Any]:
        """Seconds for all, each push sent when the one before is accepted; and the last endpoint's port."""
        to, bodies = self._settled[stream], _moves(count)
        began = time.perf_counter()
        for body in bodies:
            await to.accepted(await to.send(body))
        return {"seconds": time.perf_counter() - began, "port": FIRST_PORT + count}

    async def pipelined(self, stream: int, count: int) -> dict[str, Any]:
        """The same, but nothing is waited for: the answers must come in the order of the pushes, one for each."""
        to, bodies = self._settled[stream], _moves(count)
        nonces: asyncio.Queue[str] = asyncio.Queue()

        async def accept() -> None:
            for _ in range(count):
                await to.accepted(await nonces.get())

        began = time.perf_counter()
        accepting = asyncio.create_task(accept())
        for body in bodies:
            nonces.put_nowait(await to.send(body))
        await accepting
        return {"seconds": time.perf_counter() - began, "port": FIRST_PORT + count}


def response(type_url: str, resources: dict[str, Any], version: str = "1") -> bytes:
    """Without a nonce: `with_nonce` adds one, and nothing is serialized again for it."""
    made = discovery_pb2.DeltaDiscoveryResponse(type_url=type_url, system_version_info=version)
    for name, resource in resources.items():
        made.resources.add(name=name, version=version).resource.Pack(resource)
    return bytes(made.SerializeToString())


def with_nonce(body: bytes, nonce: str) -> bytes:
    encoded = nonce.encode()
    return body + bytes((_NONCE << 3 | 2, len(encoded))) + encoded


def moved(port: int) -> bytes:
    return response(EDS, {MOVING: endpoints(MOVING, port)}, str(port))


def _moves(count: int) -> list[bytes]:
    return [moved(FIRST_PORT + number) for number in range(1, count + 1)]


def large_response(size: int, variant: int) -> bytes:
    """Clusters that need nothing else, each with padding in its metadata. No other cluster is touched."""
    clusters = {}
    for number in range(LARGE_CLUSTERS):
        made = cluster(f"outbound|80||large-{number}.default.svc.cluster.local", 1)
        made.metadata.filter_metadata["istio"]["padding"] = str(variant) + "x" * (size // LARGE_CLUSTERS)
        clusters[made.name] = made
    return response(CDS, clusters, f"large {variant}")


def main() -> None:
    role, *arguments = sys.argv[1:]
    with tempfile.TemporaryDirectory() as name:
        if role == "services":
            serve_services(int(arguments[0]), int(arguments[1]), Path(name))
        else:
            asyncio.run(serve_pushes(Path(name)))


if __name__ == "__main__":
    main()
