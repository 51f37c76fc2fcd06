"""A client of the SDS server as Envoy is one: gRPC over the Unix socket, one stream or many, every message kept."""

import os
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2

from pilot_agent.sds.resources import SECRET_TYPE
from tests.support.confidential import confide

SERVICE = "/envoy.service.secret.v3.SecretDiscoveryService/"


class SdsClient:
    """A channel to the socket. Streams are cancelled with `close`."""

    def __init__(self, path: Path) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        # Through a descriptor of its directory: pytest's directories are longer than a socket's path may be.
        self._directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
        self._channel = grpc.insecure_channel(f"unix:/proc/self/fd/{self._directory}/{path.name}", options)
        self._streams: list[SdsStream] = []

    def stream(self, *, is_delta: bool = False) -> "SdsStream":
        request = discovery_pb2.DeltaDiscoveryRequest if is_delta else discovery_pb2.DiscoveryRequest
        response = discovery_pb2.DeltaDiscoveryResponse if is_delta else discovery_pb2.DiscoveryResponse
        method: Any = self._channel.stream_stream(
            f"{SERVICE}{'DeltaSecrets' if is_delta else 'StreamSecrets'}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        self._streams.append(SdsStream(method, request))
        return self._streams[-1]

    def bare_stream(self) -> "BareStream":
        """One without a thread of its own, for a crowd."""
        request, response = discovery_pb2.DiscoveryRequest, discovery_pb2.DiscoveryResponse
        method: Any = self._channel.stream_stream(
            f"{SERVICE}StreamSecrets",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        return BareStream(method)

    def fetch(self, name: str, within: float = 10.0) -> Any:
        """The secret of that name, on a stream of its own."""
        stream = self.stream()
        stream.ask(name)
        secret = secrets_in(stream.next(within))[name]
        stream.cancel()
        return secret

    def close(self) -> None:
        for stream in self._streams:
            stream.cancel()
        self._channel.close()
        os.close(self._directory)

    def __enter__(self) -> "SdsClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class BareStream:
    """`send` its only request, `receive` blocks for a response."""

    def __init__(self, method: Any) -> None:
        self._method = method
        self._call: Any = None

    def send(self, name: str) -> None:
        request = discovery_pb2.DiscoveryRequest(type_url=SECRET_TYPE, resource_names=[name])
        request.node.id = "sidecar~1.2.3.4~a.b~b.svc"
        self._call = self._method(_OneAndOpen(request), timeout=60)

    def receive(self) -> Any:
        return next(self._call)

    def cancel(self) -> None:
        if self._call is not None:
            self._call.cancel()


class _OneAndOpen:
    """One request, and then none for as long as the call lives."""

    def __init__(self, request: Any) -> None:
        self._requests = [request]
        self._over = threading.Event()

    def __iter__(self) -> "_OneAndOpen":
        return self

    def __next__(self) -> Any:
        if self._requests:
            return self._requests.pop()
        self._over.wait(5)
        raise StopIteration


class SdsStream:
    """`ask` sends a request, `next` waits for a response; `error` is how the server ended it."""

    def __init__(self, method: Any, make: Any) -> None:
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._responses: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._make = make
        self.error: grpc.RpcError | None = None
        self._call = method(iter(self._requests.get, None))
        self._thread = threading.Thread(target=self._receive, name="sds client")
        self._thread.start()

    def _receive(self) -> None:
        try:
            for response in self._call:
                self._responses.put(response)
        except grpc.RpcError as error:
            self.error = error
        self._responses.put(None)

    def ask(self, *names: str, nonce: str = "", node: str = "sidecar~1.2.3.4~a.b~b.svc", **fields: Any) -> None:
        """Names as a StreamSecrets request; with `subscribe=` or others as the fields of a delta one."""
        request = self._make(type_url=SECRET_TYPE, response_nonce=nonce, **fields)
        if names:
            request.resource_names.extend(names)
        request.node.id = node
        self._requests.put(request)

    def reject(self, nonce: str, *names: str, words: str = "no good") -> None:
        request = self._make(type_url=SECRET_TYPE, response_nonce=nonce)
        request.node.id = "sidecar~1.2.3.4~a.b~b.svc"
        if names:
            request.resource_names.extend(names)
        request.error_detail.code, request.error_detail.message = 13, words
        self._requests.put(request)

    def next(self, within: float = 10.0) -> Any:
        """The next response. AssertionError when the stream has ended, or nothing came in time."""
        try:
            response = self._responses.get(timeout=within)
        except queue.Empty:
            raise AssertionError(f"no secret within {within:g} s") from None
        assert response is not None, f"the stream has ended: {self.error}"
        return response

    def is_silent(self, seconds: float = 0.2) -> bool:
        """Whether nothing comes, and the stream lives on."""
        try:
            self._responses.get(timeout=seconds)
        except queue.Empty:
            return True
        return False

    def end(self, within: float = 20.0) -> grpc.RpcError:
        """How the server ended it; AssertionError for a response instead."""
        response = self._responses.get(timeout=within)
        assert response is None, "a response, and no end"
        assert self.error is not None
        return self.error

    def cancel(self) -> None:
        self._call.cancel()
        self._requests.put(None)
        self._thread.join()


def secrets_in(response: Any) -> dict[str, Any]:
    """The Secret messages of a response, by name; private keys among them are noted as confidential."""
    return dict(_unpacked(response))


def _unpacked(response: Any) -> Iterator[tuple[str, Any]]:
    for resource in response.resources:
        packed = resource if isinstance(resource, any_pb2.Any) else resource.resource
        secret = secret_pb2.Secret()
        assert packed.type_url == SECRET_TYPE
        secret.ParseFromString(packed.value)
        if secret.tls_certificate.private_key.inline_bytes:
            confide(secret.tls_certificate.private_key.inline_bytes)
        yield secret.name, secret
