"""The ADS proxy: each stream of Envoy is one to istiod, and messages pass as the bytes they are.

Envoy's messages go on unchanged and in order; what istiod sends is forwarded, read by the agent, or dropped, as
`intercept` says. Nothing is retried here: a stream that ends, ends at both ends, and Envoy comes back.
"""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import grpc

from pilot_agent.clock import Clock
from pilot_agent.identity.certificate import stamp
from pilot_agent.log import Scope
from pilot_agent.xds.account import StreamState, TypeState, XdsAccount
from pilot_agent.xds.endings import is_expected
from pilot_agent.xds.heap import Heap
from pilot_agent.xds.intercept import Fate, Handler, Health, Interception
from pilot_agent.xds.upstream import Opened, Unreachable, Upstream
from pilot_agent.xds.wire import DELTA_REQUEST, DELTA_RESPONSE, SOTW_REQUEST, SOTW_RESPONSE, Envelope, envelope

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[bytes, bytes]

SLOW_FORWARD_S = 10.0
SILENT_AFTER_S = 5.0
"""istiod answers the first request of a stream within milliseconds, even where it has nothing to send."""
LONGEST_NACK = 500
REPLACED, ENDED = "Envoy opened a new stream", "Envoy ended its stream"
_PEER = re.compile(r"unix-abstract:pilot-agent\.(\d+)\.")

Filter = Callable[[str, bytes, bool], Awaitable[bytes]]
"""(type, response, whether it is delta) to the response Envoy gets."""


async def as_it_came(_type_url: str, response: bytes, _is_delta: bool) -> bytes:
    return response


class TooLong(Exception):
    """Envoy sent a request over the limit."""


class AdsProxy:
    """All streams. One process of Envoy has one: a new one ends the one before, and leaves other processes' alone
    (during a hot restart there are two). An application's gRPC has one for each target it talks to, so without an Envoy
    (`is_one_per_process` false) they live side by side."""

    def __init__(
        self,
        upstream: Upstream,
        handlers: Mapping[str, Handler],
        account: XdsAccount,
        log: Scope,
        clock: Clock,
        pass_on: Filter = as_it_came,
        *,
        is_one_per_process: bool = True,
    ) -> None:
        self._upstream, self._handlers, self._account = upstream, handlers, account
        self._log, self._clock, self._pass_on = log, clock, pass_on
        self._is_one_per_process = is_one_per_process
        self._streams: list[_Stream] = []
        self._health: Health | None = None
        self._heap = Heap()

    def report(self, healthy: bool, message: str) -> None:
        """The workload's health, to istiod: now where it can hear it, and again on every later stream."""
        self._health = Health(healthy, message)
        for stream in self._streams:
            stream.tell_health(self._health)

    async def serve(self, context: "Context", *, is_delta: bool, largest_request: int) -> None:
        """One stream of Envoy, to its end. It ends by a request of more than `largest_request` bytes."""
        process = process_of(context.peer())
        interception = Interception(self._handlers, lambda: self._health, self._log, is_delta=is_delta)
        state = StreamState(process, is_delta, self._clock.wall())
        stream = _Stream(
            context,
            interception,
            state,
            self._account,
            self._heap,
            self._log,
            self._clock,
            self._pass_on,
            largest_request,
        )
        if self._is_one_per_process:
            for before in self._streams:
                if before.process == process:
                    before.replace()
        self._streams.append(stream)
        self._account.streams.append(state)
        try:
            await stream.run(self._upstream)
        finally:
            self._account.streams.remove(state)
            self._streams.remove(stream)


def process_of(peer: str) -> int:
    """The pid behind a connection, which the relay puts into the name of its own end; 0 where it is not known."""
    found = _PEER.match(peer)
    return int(found[1]) if found else 0


class _Stream:
    def __init__(
        self,
        context: "Context",
        interception: Interception,
        state: StreamState,
        account: XdsAccount,
        heap: Heap,
        log: Scope,
        clock: Clock,
        pass_on: Filter,
        largest_request: int,
    ) -> None:
        self._context, self._interception, self._state, self._account = context, interception, state, account
        self._heap, self._log, self._clock, self._pass_on = heap, log, clock, pass_on
        self._largest_request = largest_request
        self._request, self._response = (
            (DELTA_REQUEST, DELTA_RESPONSE) if state.is_delta else (SOTW_REQUEST, SOTW_RESPONSE)
        )
        # Without a bound on purpose: bounded in both directions, gRPC's flow control could lock both sides up.
        self._queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._replaced = asyncio.Event()
        self._silence: asyncio.TimerHandle | None = None
        self._is_over = False

    @property
    def process(self) -> int:
        return self._state.process

    def replace(self) -> None:
        """A newer stream of the same Envoy has come: this one ends, as if all were well."""
        self._replaced.set()

    def tell_health(self, health: Health) -> None:
        if self._interception.has_asked_for_listeners:
            self._queue.put_nowait(self._interception.health_request(health))

    async def run(self, upstream: Upstream) -> None:
        try:
            await self._run(upstream)
        except asyncio.CancelledError:
            # All that gRPC tells of a reset or of a connection that is gone, unless a read sees the end first.
            if not self._is_over:
                self._ended("envoy", "cancelled", ENDED)
            raise

    async def _run(self, upstream: Upstream) -> None:
        try:
            opened = await self._unless_replaced(upstream.open(is_delta=self._state.is_delta))
        except Unreachable as error:
            self._account.connection_failures += 1
            self._account.istiod_ends["error"] += 1
            self._say_problem(str(error))
            await self._context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        if opened is None:
            self._ended("envoy", "cancelled", REPLACED)
            return
        self._state.istiod, self._state.is_connected = opened.istiod, True
        try:
            await self._pump(opened)
        finally:
            await _close(opened)

    async def _unless_replaced(self, work: Any) -> Opened | None:
        opening = asyncio.ensure_future(work)
        replaced = asyncio.ensure_future(self._replaced.wait())
        try:
            await asyncio.wait({opening, replaced}, return_when=asyncio.FIRST_COMPLETED)
            if opening.done():
                opened: Opened = opening.result()
                return opened
            return None
        finally:
            replaced.cancel()
            if not opening.done():
                opening.cancel()
                await asyncio.gather(opening, return_exceptions=True)

    async def _pump(self, opened: Opened) -> None:
        """Until one side ends. What istiod says at its end, Envoy is told word for word."""
        from_envoy = asyncio.create_task(self._from_envoy(), name="ads from Envoy")
        to_istiod = asyncio.create_task(self._to_istiod(opened.call, opened.istiod), name="ads to istiod")
        from_istiod = asyncio.create_task(self._from_istiod(opened.call), name="ads from istiod")
        replaced = asyncio.create_task(self._replaced.wait(), name="ads replaced")
        tasks: set[asyncio.Task[Any]] = {from_envoy, to_istiod, from_istiod, replaced}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await self._end(opened, from_envoy, from_istiod, replaced)
        finally:
            self._stop_waiting()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _end(
        self,
        opened: Opened,
        from_envoy: "asyncio.Task[None]",
        from_istiod: "asyncio.Task[None]",
        replaced: "asyncio.Task[Any]",
    ) -> None:
        if replaced.done():
            self._ended("envoy", "cancelled", REPLACED)
            return
        if from_envoy.done():
            await self._end_of_envoy(from_envoy.exception())
            return
        failure = from_istiod.exception() if from_istiod.done() else None
        if failure is not None and not isinstance(failure, grpc.RpcError):
            text = f"what istiod {opened.istiod} sent could not be passed on: {failure!r}"
            if isinstance(failure, ValueError):
                text = f"istiod {opened.istiod} sent what is no xDS response: {failure}"
            self._ended("istiod", "error", text)
            await self._context.abort(grpc.StatusCode.INTERNAL, text)
        code, details = await opened.ending.status()
        text = f"istiod {opened.istiod} ended the stream: {code.name}{f': {details}' if details else ''}"
        self._ended("istiod", "cancelled" if is_expected(code, details) else "error", text)
        if code is not grpc.StatusCode.OK:
            self._account.problem = text
            await self._context.abort(code, details)

    async def _end_of_envoy(self, error: BaseException | None) -> None:
        if isinstance(error, TooLong):
            self._ended("envoy", "error", str(error))
            await self._context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        why = f": {error}" if error is not None else ""
        self._ended("envoy", "error" if error is not None else "cancelled", f"{ENDED}{why}")

    def _ended(self, side: str, kind: str, text: str) -> None:
        self._is_over = True
        (self._account.envoy_ends if side == "envoy" else self._account.istiod_ends)[kind] += 1
        self._account.past.append(text)
        if kind == "cancelled":
            self._log.info(text)
        else:
            self._account.problem = text
            self._log.warn(text)

    def _say_problem(self, problem: str) -> None:
        if problem != self._account.problem:
            self._log.warn(f"no configuration from istiod: {problem}")
        self._account.problem = problem

    def _wait_for_answer(self, istiod: str) -> None:
        """Once for a stream: a connection can be fine, and nobody there to answer."""
        if self._silence is None:
            text = f"istiod {istiod} has not answered since {stamp(self._clock.wall())}"
            self._silence = asyncio.get_running_loop().call_later(SILENT_AFTER_S, self._say_problem, text)

    def _stop_waiting(self) -> None:
        if self._silence is not None:
            self._silence.cancel()

    async def _from_envoy(self) -> None:
        while True:
            message: Any = await self._context.read()
            if message is grpc.aio.EOF:
                return
            if len(message) > self._largest_request:
                raise TooLong(self._told_of(message))
            self._queue.put_nowait(message)
            for own in self._note_request(message):
                self._queue.put_nowait(own)

    def _told_of(self, message: bytes) -> str:
        kind = _name(envelope(message, self._request).type_url)
        return (
            f"a request of Envoy for {kind} has {len(message)} bytes, ISTIO_GPRC_MAXRECVMSGSIZE allows "
            f"{self._largest_request}"
        )

    def _note_request(self, message: bytes) -> list[bytes]:
        """The requests of the agent's own that go behind this one."""
        try:
            around = envelope(message, self._request)
        except ValueError:
            return []  # istiod is the one to refuse it
        state = self._state.of(around.type_url)
        state.requests += 1
        # Without an error, a nonce for the second time is no answer: Envoy changes what it asks for.
        if around.nonce and (around.nonce != state.answered_nonce or around.error is not None):
            state.answered_nonce = around.nonce
            self._note_answer(around, state)
        return self._interception.own_requests(around.type_url)

    def _note_answer(self, around: Envelope, state: TypeState) -> None:
        """The same refusal may follow each push for hours: it is told once, until the words change, and counted."""
        state.nack = around.error[:LONGEST_NACK] if around.error is not None else None
        kind, refused = around.type_url, self._account.refused
        if around.error is None:
            if refused.pop(kind, None) is not None:
                self._log.info(f"Envoy takes {_name(kind)} again")
        elif state.responses:  # else it can't be what istiod sent
            self._account.refusals[kind] += 1
            words = " ".join(around.error.split())[:LONGEST_NACK]
            if refused.get(kind) != words:
                refused[kind] = words
                self._log.warn(f"Envoy refuses {_name(kind)}: {words}")

    async def _to_istiod(self, call: Any, istiod: str) -> None:
        while True:
            message = await self._queue.get()
            self._wait_for_answer(istiod)
            await call.write(message)
            self._account.requests += 1

    async def _from_istiod(self, call: Any) -> None:
        while await self._pass_one(call):
            pass

    async def _pass_one(self, call: Any) -> bool:
        """False at the end. Apart from its loop, whose local name would keep 20 MB until the next push."""
        message = await call.read()
        if message is grpc.aio.EOF:
            return False
        self._stop_waiting()
        self._account.responses += 1
        self._account.problem, self._account.last_contact = None, self._clock.wall()
        await self._take(bytes(message))
        self._heap.note(len(message))
        return True

    async def _take(self, message: bytes) -> None:
        around = envelope(message, self._response)
        state = self._state.of(around.type_url)
        state.version, state.nonce, state.resources = around.version, around.nonce, around.resources
        state.responses += 1
        state.bytes += len(message)
        fate, answer = self._interception.take(message, around)
        if answer is not None:
            self._queue.put_nowait(answer)
        if fate is Fate.FORWARDED:
            passed = await self._pass_on(around.type_url, message, self._state.is_delta)
            began = self._clock.monotonic()
            await self._context.write(passed)
            took = self._clock.monotonic() - began
            if took > SLOW_FORWARD_S:
                self._log.warn(f"Envoy took {took:.0f} s to read {len(message)} bytes of {around.type_url}")
        elif fate is Fate.DROPPED:
            self._account.dropped[around.type_url] += 1
            if self._account.dropped[around.type_url] == 1:
                self._log.error(f"dropped what istiod sent of {around.type_url}: nobody here takes that type")


async def _close(opened: Opened) -> None:
    opened.call.cancel()
    with contextlib.suppress(Exception):
        await opened.channel.close()


def _name(type_url: str) -> str:
    """As people call it: Listener."""
    return type_url.rpartition(".")[2]
