"""What the C library is told about the agent's memory, through the ctypes that is loaded anyway.

glibc gives every thread a heap of its own, and most of our fourteen threads are gRPC's and sleep: each keeps the most
it ever needed. musl has one heap and neither function; there nothing happens.
"""

import ctypes

_M_ARENA_MAX = -8


def share_one_heap() -> None:
    """Have all threads use the first one's heap: 8 MiB less at rest. Before the first thread that allocates."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Return to the kernel what was only needed for a while. Takes a millisecond or two."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
