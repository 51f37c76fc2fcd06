"""What a stream to istiod ended with, and how that is to be taken: as a part of life, or as trouble (reference
security-xds.md, section 5.6). That decides how it is counted and told; Envoy hears code and words as they are.
"""

from pilot_agent.http2.status import Code, Status

_GONE = (
    # As gRPC for Go says it, in which istiod and what stands before it may quote it.
    "client disconnected",
    "error reading from server: EOF",
    "transport is closing",
    # As we say the same of our own connection.
    "Socket closed",
)
_WELL_MEANT = (
    "RST_STREAM with error code: NO_ERROR",
    "received prior goaway: code: NO_ERROR",
    "RST_STREAM with error code 0",
    "GOAWAY received; Error code: 0;",
)


def is_expected(status: Status) -> bool:
    """istiod ended it, or went away, in a way that belongs to every restart and every longest age of a connection."""
    if status.code in (Code.OK, Code.CANCELLED, Code.DEADLINE_EXCEEDED):
        return True
    if status.code is Code.UNAVAILABLE and any(each in status.message for each in _GONE):
        return True
    return any(each in status.message for each in _WELL_MEANT)
