"""One SDS stream, state of the world or delta: requests in, secrets out, until either side ends it.

`watch` has the rules; here is what goes over the wire. A push does not wait for the ACK of the one before.
"""

import asyncio
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc

from pilot_agent.identity.slots import Secret
from pilot_agent.log import Scope
from pilot_agent.protobuf import Message
from pilot_agent.sds.account import SdsAccount
from pilot_agent.sds.packing import packed
from pilot_agent.sds.resources import SECRET_TYPE, Provider
from pilot_agent.sds.watch import Names, NoSecret, Watch

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

WRITE_WITHIN_S = 20.0
"""A client that does not read must not hold what it was to get for ever."""
LONGEST_NACK = 500


class Read:
    """A request: its fields by name, and its size on the wire. Raises ValueError for what is none."""

    def __init__(self, kind: Message, message: bytes) -> None:
        self.fields, self.size = kind.decode(message), len(message)


class Stream(ABC):
    """`run` serves one stream to its end. The two forms differ in what a request says and how an answer looks."""

    def __init__(
        self,
        context: "Context",
        names: Names,
        provider: Callable[[], Provider | None],
        versions: Callable[[], str],
        account: SdsAccount,
        log: Scope,
    ) -> None:
        self._context, self._provider, self._versions = context, provider, versions
        self._account, self._log = account, log
        self._event = asyncio.Event()
        self._watch = Watch(names, self._event.set)
        self._has_node = False
        self._is_watching = False
        self._nonce = ""

    async def run(self) -> None:
        self._account.streams += 1
        reading = self._read()
        try:
            while True:
                await self._event.wait()
                self._event.clear()
                if reading.done():
                    request = reading.result()
                    if request is grpc.aio.EOF:
                        return
                    await self._take(request)
                    reading = self._read()
                await self._send_due()
        finally:
            self._account.streams -= 1
            self._watch.close()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)  # an abort ends it with an error

    def _read(self) -> "asyncio.Task[Any]":
        """One read at a time, and never cancelled while the stream lives: that would end the call."""

        async def read() -> Any:
            return await self._context.read()

        task = asyncio.get_running_loop().create_task(read(), name="sds read")
        task.add_done_callback(lambda _: self._event.set())
        return task

    async def _take(self, read: Read) -> None:
        self._account.largest_request = max(self._account.largest_request, read.size)
        request = read.fields
        if not self._has_node and not (request["node"] or {}).get("id"):
            await self._context.abort(grpc.StatusCode.INVALID_ARGUMENT, "missing node information")
        self._has_node = True
        refusal = request["error_detail"]
        if refusal is not None:
            self._account.rejects += 1
            words = " ".join(refusal["message"].split())[:LONGEST_NACK]
            self._log.warn(f"Envoy refuses a secret: {words}", code=refusal["code"])
            return
        try:
            self._follow(request)
        except NoSecret as error:
            await self._end(error)

    async def _send_due(self) -> None:
        try:
            while due := self._watch.due():
                await self._send(due)
        except NoSecret as error:
            await self._end(error)

    async def _end(self, error: NoSecret) -> None:
        """Recovery is Envoy's: it asks again, with a pause that grows."""
        self._log.warn(str(error))
        code = grpc.StatusCode.NOT_FOUND if error.is_unknown else grpc.StatusCode.UNKNOWN
        await self._context.abort(code, str(error))

    async def _send(self, secrets: list[tuple[str, Secret]]) -> None:
        self._nonce = str(uuid.uuid4())
        began = time.monotonic()
        try:
            async with asyncio.timeout(WRITE_WITHIN_S):
                await self._context.write(self._response(secrets))
        except TimeoutError:
            self._account.write_timeouts += 1
            await self._context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the secrets were not read in time")
        self._account.sent(time.monotonic() - began)
        self._log.debug(f"sent {', '.join(name for name, _ in secrets)}", peer=self._context.peer())

    def _expired(self) -> None:
        self._account.expired_nonces[SECRET_TYPE] += 1

    @abstractmethod
    def _follow(self, request: dict[str, Any]) -> None:
        """Change what is watched. Raises NoSecret for a name there is not."""

    @abstractmethod
    def _response(self, secrets: list[tuple[str, Secret]]) -> dict[str, Any]: ...


class SotwStream(Stream):
    """StreamSecrets: a request names everything it wants."""

    def _follow(self, request: dict[str, Any]) -> None:
        names = request["resource_names"]
        if not names:
            self._watch.change(())
        elif not request["response_nonce"] or not self._is_watching:
            # A nonce of an earlier stream is no reason for silence: this is how a client comes back.
            self._is_watching = True
            self._watch.begin(names)
        elif request["response_nonce"] != self._nonce:
            self._expired()
        else:
            self._watch.change(names)

    def _response(self, secrets: list[tuple[str, Secret]]) -> dict[str, Any]:
        provider = self._provider()
        return {
            "version_info": self._versions(),
            "resources": [packed(name, secret, provider) for name, secret in secrets],
            "type_url": SECRET_TYPE,
            "nonce": self._nonce,
        }


class DeltaStream(Stream):
    """DeltaSecrets: a request says what is wanted more, or no longer, and what the client has already."""

    def _follow(self, request: dict[str, Any]) -> None:
        if request["response_nonce"] not in ("", self._nonce):
            self._expired()  # what is subscribed to counts all the same (xDS protocol, incremental variant)
        self._watch.remove(request["resource_names_unsubscribe"])
        self._watch.change([*self._watch.watched, *request["resource_names_subscribe"]])
        if not self._is_watching:
            self._is_watching = True
            for entry in request["initial_resource_versions"]:
                self._watch.has(entry["key"], entry["value"])

    def _response(self, secrets: list[tuple[str, Secret]]) -> dict[str, Any]:
        provider = self._provider()
        return {
            "system_version_info": self._versions(),
            "resources": [
                {"name": name, "version": secret.version, "resource": packed(name, secret, provider)}
                for name, secret in secrets
            ],
            "type_url": SECRET_TYPE,
            "nonce": self._nonce,
        }
