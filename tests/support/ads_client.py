"""A client of an agent's ADS as Envoy is one, but of raw bytes: what it sends and gets is what was on the wire."""

import os
import queue
import threading
from pathlib import Path
from typing import Any

import grpc
from envoy.service.discovery.v3 import discovery_pb2

from tests.support.fake_ads import DELTA_METHOD, SERVICE, SOTW_METHOD

NODE_ID = "sidecar~1.2.3.4~a~b"
PATIENCE_S = 15.0


class AdsClient:
    """One connection to the socket, made with its first stream."""

    def __init__(self, path: Path) -> None:
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        # Through a descriptor of its directory: pytest's directories are longer than a socket's path may be.
        self._directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
        self._channel = grpc.insecure_channel(f"unix:/proc/self/fd/{self._directory}/{path.name}", options)
        self._streams: list[AdsStream] = []
        self._is_closed = False

    def stream(self, *, is_delta: bool = False) -> "AdsStream":
        self._streams.append(AdsStream(self._channel, is_delta=is_delta))
        return self._streams[-1]

    def close(self) -> None:
        """May be called again."""
        if self._is_closed:
            return
        self._is_closed = True
        for stream in self._streams:
            stream.cancel()
        self._channel.close()
        os.close(self._directory)

    def __enter__(self) -> "AdsClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AdsStream:
    """`end` is its status and the words with it, once it is over."""

    def __init__(self, channel: grpc.Channel, *, is_delta: bool) -> None:
        self.is_delta = is_delta
        self.end: tuple[grpc.StatusCode, str] | None = None
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._responses: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        method: Any = channel.stream_stream(f"/{SERVICE}/{DELTA_METHOD if is_delta else SOTW_METHOD}")
        self._call = method(iter(self._requests.get, None))
        self._thread = threading.Thread(target=self._receive)
        self._thread.start()

    def _receive(self) -> None:
        try:
            for response in self._call:
                self._responses.put(response)
            self.end = (grpc.StatusCode.OK, "")
        except grpc.RpcError as error:
            self.end = (error.code(), error.details() or "")
        self._responses.put(None)

    def send(self, message: Any) -> bytes:
        """A message, or bytes; the bytes."""
        raw = message if isinstance(message, bytes) else message.SerializeToString()
        self._requests.put(raw)
        return bytes(raw)

    def ask(self, type_url: str, *names: str, nonce: str = "", node_id: str = NODE_ID) -> bytes:
        """Ask for a type, or for names of it; the bytes."""
        if self.is_delta:
            message: Any = discovery_pb2.DeltaDiscoveryRequest(resource_names_subscribe=names)
        else:
            message = discovery_pb2.DiscoveryRequest(resource_names=names)
        message.type_url, message.response_nonce, message.node.id = type_url, nonce, node_id
        return self.send(message)

    def next(self) -> bytes:
        found = self._responses.get(timeout=PATIENCE_S)
        assert found is not None, f"the stream has ended: {self.end}"
        return found

    def next_message(self) -> Any:
        kind = discovery_pb2.DeltaDiscoveryResponse if self.is_delta else discovery_pb2.DiscoveryResponse
        return kind.FromString(self.next())

    def half_close(self) -> None:
        """Say that nothing more will be sent."""
        self._requests.put(None)

    def ended(self) -> tuple[grpc.StatusCode, str]:
        """How it ends, in time; what it was sent before that is left out."""
        while self._responses.get(timeout=PATIENCE_S) is not None:
            pass
        assert self.end is not None
        return self.end

    def cancel(self) -> None:
        self._call.cancel()
        self._requests.put(None)
        self._thread.join()
