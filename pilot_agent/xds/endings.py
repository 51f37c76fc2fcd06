"""How the end of a stream to istiod is to be taken: as a part of life, or as trouble (reference security-xds.md,
section 5.6). It decides what is counted and how loudly it is told; Envoy hears code and words as they are either way.
"""

import grpc

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
