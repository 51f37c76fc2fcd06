"""A real gRPC health server in a process of its own: grpcio leaves threads and descriptors in whoever uses it.

`health_server()` for tests; run as a program it prints its port and serves until it is killed. It answers by the name
of the service: `serving`, `not-serving`, `unknown`, `slow` and `broken`, the empty one like `serving`; others are
NOT_FOUND. The user agents of its callers go to standard output.
"""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

METHOD = "/grpc.health.v1.Health/Check"
_REPLIES = {
    b"": b"\x08\x01",
    b"serving": b"\x08\x01",
    b"not-serving": b"\x08\x02",
    b"unknown": b"",
    b"broken": b"\xff",
}


class HealthServer(NamedTuple):
    port: int
    output: IO[str]

    def caller(self) -> str:
        """Address and user agent of the next caller that was not read yet."""
        return self.output.readline().strip()


@contextmanager
def health_server(*prefix: str, host: str = "127.0.0.1", service: str = METHOD) -> Iterator[HealthServer]:
    argv = [*prefix, sys.executable, "-I", str(Path(__file__)), host, service]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield HealthServer(int(process.stdout.readline()), process.stdout)
        finally:
            process.kill()


def serve(host: str, method: str) -> None:
    import threading

    import grpc

    never = threading.Event()

    def check(request: bytes, context: grpc.ServicerContext) -> bytes:
        agent = dict(context.invocation_metadata()).get("user-agent", "")
        print(context.peer(), agent, flush=True)
        name = request[2:]
        if name == b"slow":
            never.wait()
        if name not in _REPLIES:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return _REPLIES[name]

    class Handler(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
            return grpc.unary_unary_rpc_method_handler(check) if details.method == method else None

    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((Handler(),))
    port = server.add_insecure_port(f"[{host}]:0" if ":" in host else f"{host}:0")
    server.start()
    print(port, flush=True)
    never.wait()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2])
