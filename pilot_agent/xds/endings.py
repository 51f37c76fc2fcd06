"""What a stream to istiod ended with, and how that is to be taken: as a part of life, or as trouble (reference
security-xds.md, section 5.6). That decides how it is counted and told; Envoy hears code and words as they are.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

import grpc

STATUS_WITHIN_S = 1.0
_OF_A_WRITE = (grpc.StatusCode.INTERNAL, "Internal error from Core")

_GONE = (
    # As gRPC for Go says it, in which istiod and what stands before it may quote it.
    "client disconnected",
    "error reading from server: EOF",
    "transport is closing",
    # As gRPC for Python says the same of its own connection.
    "Socket closed",
)
_WELL_MEANT = (
    "RST_STREAM with error code: NO_ERROR",
    "received prior goaway: code: NO_ERROR",
    "RST_STREAM with error code 0",
    "GOAWAY received; Error code: 0;",
)


def is_expected(code: grpc.StatusCode, details: str) -> bool:
    """istiod ended it, or went away, in a way that belongs to every restart and every longest age of a connection."""
    if code in (grpc.StatusCode.OK, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED):
        return True
    if code is grpc.StatusCode.UNAVAILABLE and any(each in details for each in _GONE):
        return True
    return any(each in details for each in _WELL_MEANT)


class Ending:
    """The status of a call as istiod gave it. Made with the call.

    A write that finds the call over makes gRPC for Python put INTERNAL and words of its own in the place of the status,
    before that has come or after (2 of 50 restarts of istiod). So each one is noted when it is set.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self._noted: tuple[grpc.StatusCode, str] | None = None
        self._is_noted = asyncio.Event()
        call.add_done_callback(self._note)

    async def status(self) -> tuple[grpc.StatusCode, str]:
        """Code and words, once the call is over."""
        code, details = await self._call.code(), await self._call.details() or ""
        try:
            async with asyncio.timeout(STATUS_WITHIN_S):
                await self._is_noted.wait()
        except TimeoutError:
            return code, details
        assert self._noted is not None
        return self._noted

    def _note(self, call: Any) -> None:
        """gRPC calls this for each status, while it sets it."""
        code, details = _at_once(call.code()), _at_once(call.details())
        if self._noted is None and code is not None and (code, details) != _OF_A_WRITE:
            self._noted = code, details or ""
            self._is_noted.set()


def _at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that has nothing to wait for; None if it would wait."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    work.close()
    return None
