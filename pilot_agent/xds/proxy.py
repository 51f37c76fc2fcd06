"""The ADS proxy: each stream of Envoy is one to istiod, and messages pass as the bytes they are.

Envoy's messages go on unchanged and in order; what istiod sends is forwarded, read by the agent, or dropped, as
`intercept` says. Nothing is retried here: a stream that ends, ends at both ends, and Envoy comes back.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, cast

from pilot_agent.clock import Clock
from pilot_agent.http2.outgoing import Turn
from pilot_agent.http2.server import ServerStream
from pilot_agent.http2.status import Code, Status
from pilot_agent.http2.stream import Message, Receiver
from pilot_agent.identity.certificate import stamp
from pilot_agent.log import Scope
from pilot_agent.xds.account import StreamState, TypeState, XdsAccount
from pilot_agent.xds.endings import is_expected
from pilot_agent.xds.heap import Heap
from pilot_agent.xds.intercept import Fate, Handler, Health, Interception
from pilot_agent.xds.upstream import Opened, Unreachable, Upstream
from pilot_agent.xds.wire import DELTA_REQUEST, DELTA_RESPONSE, SOTW_REQUEST, SOTW_RESPONSE, Envelope, envelope

SLOW_FORWARD_S = 10.0
SILENT_AFTER_S = 5.0
"""istiod answers the first request of a stream within milliseconds, even where it has nothing to send."""
LONGEST_NACK = 500
REPLACED, ENDED = "Envoy opened a new stream", "Envoy ended its stream"

CLOSE_S = 1.0
"""For the connections to istiod to end with the server."""
_OF_ENVOY = (Code.CANCELLED, Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED)
"""How a stream ends that Envoy ended; anything else is what it sent."""

Filter = Callable[[str, bytes, bool], Awaitable[bytes] | None]
"""(type, response, whether it is delta) to the response Envoy gets; None: as it came, with nothing to wait for."""


def as_it_came(_type_url: str, _response: bytes, _is_delta: bool) -> None:
    return None


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
        self._upstream, self._handlers, self.account = upstream, handlers, account
        self.log, self.clock, self.pass_on = log, clock, pass_on
        self._is_one_per_process = is_one_per_process
        self._streams: list[_Stream] = []
        self._health: Health | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.heap = Heap()

    def report(self, healthy: bool, message: str) -> None:
        """The workload's health, to istiod: now where it can hear it, and again on every later stream."""
        self._health = Health(healthy, message)
        for stream in self._streams:
            stream.tell_health(self._health)

    @property
    def turn(self) -> Turn:
        return self._upstream.turn

    def serve(self, envoy: ServerStream, *, is_delta: bool, largest_request: int | None) -> Receiver:
        """A stream of Envoy, from its beginning. It ends by a request of more than `largest_request` bytes."""
        interception = Interception(self._handlers, lambda: self._health, self.log, is_delta=is_delta)
        state = StreamState(envoy.pid, is_delta, self.clock.wall())
        stream = _Stream(self, envoy, interception, state, largest_request)
        if self._is_one_per_process:
            for before in list(self._streams):
                if before.process == envoy.pid:
                    before.replace()
        self._streams.append(stream)
        self.account.streams.append(state)
        stream.begin(self._upstream)
        return stream

    def ended(self, stream: "_Stream", state: StreamState) -> None:
        self.account.streams.remove(state)
        self._streams.remove(stream)

    def run(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        """In a task that `close` waits for."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Once no stream of Envoy is left: until nothing of them is."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_S)


class _Stream:
    """The receiver of Envoy's stream, and all that is one with it."""

    def __init__(
        self,
        proxy: AdsProxy,
        envoy: ServerStream,
        interception: Interception,
        state: StreamState,
        largest_request: int | None,
    ) -> None:
        self._proxy, self._envoy, self._interception, self._state = proxy, envoy, interception, state
        self._account, self._log, self._clock = proxy.account, proxy.log, proxy.clock
        self._largest_request = largest_request
        self._request, self._response = (
            (DELTA_REQUEST, DELTA_RESPONSE) if state.is_delta else (SOTW_REQUEST, SOTW_RESPONSE)
        )
        # Without a bound on purpose: bounded in both directions, flow control could lock both sides up.
        self._early: list[bytes] = []
        """What goes to istiod once it is connected."""
        self._opened: Opened | None = None
        self._opening: asyncio.Task[None] | None = None
        self._silence: asyncio.TimerHandle | None = None
        self._is_over = False
        self._paused_at: float | None = None

    @property
    def process(self) -> int:
        return self._state.process

    def replace(self) -> None:
        """A newer stream of the same Envoy has come: this one ends, as if all were well."""
        self._finish("envoy", "cancelled", REPLACED, Status(Code.OK))

    def tell_health(self, health: Health) -> None:
        if self._interception.has_asked_for_listeners:
            self._send(self._interception.health_request(health))

    # To istiod

    def begin(self, upstream: Upstream) -> None:
        self._opening = self._proxy.run(self._open(upstream), "ads opening")

    async def _open(self, upstream: Upstream) -> None:
        try:
            opened = await upstream.open(_FromIstiod(self), is_delta=self._state.is_delta)
        except Unreachable as error:
            self._account.connection_failures += 1
            self._say_problem(str(error))
            self._finish("istiod", "error", None, Status(Code.UNAVAILABLE, str(error)))
            return
        except Exception as error:  # noqa: BLE001 - a bug is told, and Envoy comes back
            text = f"istiod could not be connected to: {error!r}"
            self._finish("istiod", "error", text, Status(Code.INTERNAL, text))
            return
        self._opened = opened
        self._state.istiod, self._state.is_connected = opened.istiod, True
        early, self._early = self._early, []
        for message in early:
            self._send(message)

    def _send(self, message: bytes) -> None:
        if self._opened is None:
            self._early.append(message)
            return
        self._wait_for_answer(self._opened.istiod)
        self._opened.stream.write(message)
        self._account.requests += 1

    # From Envoy (http2.stream.Receiver)

    def message_received(self, message: Message) -> None:
        request = bytes(message)
        if self._largest_request is not None and len(request) > self._largest_request:
            text = self._told_of(request)
            self._finish("envoy", "error", text, Status(Code.RESOURCE_EXHAUSTED, text))
            return
        self._send(request)
        for own in self._note_request(request):
            self._send(own)

    def half_closed(self) -> None:
        self._finish("envoy", "cancelled", ENDED, Status(Code.OK))

    def ended(self, status: Status) -> None:
        if status.code in _OF_ENVOY:
            self._finish("envoy", "cancelled", ENDED, status)
        else:
            self._finish("envoy", "error", f"{ENDED}: {status}", status)

    def pause_writing(self) -> None:
        """Envoy does not read so fast: istiod waits too."""
        self._paused_at = self._clock.monotonic()
        if self._opened is not None:
            self._opened.stream.pause_reading()

    def resume_writing(self) -> None:
        assert self._paused_at is not None
        took = self._clock.monotonic() - self._paused_at
        if took > SLOW_FORWARD_S:
            self._log.warn(f"Envoy took {took:.0f} s to read what istiod sent")
        if self._opened is not None:
            self._opened.stream.resume_reading()

    # Ends

    def _finish(self, side: str, kind: str, text: str | None, status: Status) -> None:
        """Once, and both ways: Envoy hears `status`, where it still listens; istiod that we are gone."""
        if self._is_over:
            return
        self._is_over = True
        self._stop_waiting()
        (self._account.envoy_ends if side == "envoy" else self._account.istiod_ends)[kind] += 1
        if text is not None:
            self._tell_end(kind, text)
        self._envoy.end(status)
        self._proxy.ended(self, self._state)
        self._early.clear()
        if self._opened is not None:
            self._opened.connection.close()
            self._proxy.run(self._opened.connection.wait_closed(), "ads closing")
        elif self._opening is not None and self._opening is not asyncio.current_task():
            self._opening.cancel()

    def _tell_end(self, kind: str, text: str) -> None:
        self._account.past.append(text)
        if kind == "cancelled":
            self._log.info(text)
        else:
            self._account.problem = text
            self._log.warn(text)

    def istiod_ended(self, status: Status) -> None:
        """What istiod says at its end, Envoy is told word for word."""
        text = f"istiod {self._state.istiod} ended the stream: {status}"
        is_well = is_expected(status)
        self._finish("istiod", "cancelled" if is_well else "error", text, status)
        if not status.is_ok:
            self._account.problem = text

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

    # From istiod

    def take(self, message: Message) -> None:
        if self._is_over:
            return
        self._stop_waiting()
        self._account.responses += 1
        self._account.problem, self._account.last_contact = None, self._clock.wall()
        try:
            self._take(cast(bytes, message))  # read, a bytearray is no different
        except Exception as error:  # noqa: BLE001 - whatever it is, Envoy is told and comes back
            text = f"what istiod {self._state.istiod} sent could not be passed on: {error!r}"
            if isinstance(error, ValueError):
                text = f"istiod {self._state.istiod} sent what is no xDS response: {error}"
            self._finish("istiod", "error", text, Status(Code.INTERNAL, text))
        self._proxy.heap.note(len(message))

    def _take(self, message: bytes) -> None:
        around = envelope(message, self._response)
        state = self._state.of(around.type_url)
        state.version, state.nonce, state.resources = around.version, around.nonce, around.resources
        state.responses += 1
        state.bytes += len(message)
        fate, answer = self._interception.take(message, around)
        if answer is not None:
            self._send(answer)
        if fate is Fate.FORWARDED:
            self._forward(around.type_url, message)
        elif fate is Fate.DROPPED:
            self._account.dropped[around.type_url] += 1
            if self._account.dropped[around.type_url] == 1:
                self._log.error(f"dropped what istiod sent of {around.type_url}: nobody here takes that type")

    def _forward(self, type_url: str, message: bytes) -> None:
        passed = self._proxy.pass_on(type_url, message, self._state.is_delta)
        if passed is None:
            self._envoy.write(message)
            return
        assert self._opened is not None
        self._opened.stream.pause_reading()  # what comes behind it waits
        self._proxy.run(self._forward_later(passed, self._opened), "ads filter")

    async def _forward_later(self, passed: Awaitable[bytes], opened: Opened) -> None:
        try:
            self._envoy.write(await passed)
        except Exception as error:  # noqa: BLE001 - as in `take`
            text = f"what istiod {opened.istiod} sent could not be passed on: {error!r}"
            self._finish("istiod", "error", text, Status(Code.INTERNAL, text))
            return
        if not self._envoy.is_writing_paused:
            opened.stream.resume_reading()


class _FromIstiod:
    """The receiver of the stream to istiod."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream

    def message_received(self, message: Message) -> None:
        self._stream.take(message)

    def half_closed(self) -> None:
        """Only a server is told."""

    def ended(self, status: Status) -> None:
        self._stream.istiod_ended(status)

    def pause_writing(self) -> None:
        """Nothing to do: requests wait without a bound."""

    def resume_writing(self) -> None:
        """As above."""


def _name(type_url: str) -> str:
    """As people call it: Listener."""
    return type_url.rpartition(".")[2]
