"""The C library's memory: one heap for all threads, given back after the start; nothing where that can't be."""

import ctypes
import subprocess
import sys

import pytest

from pilot_agent.supervise import memory

THREADS = """
import ctypes, sys, threading
from pilot_agent.supervise.memory import give_back, share_one_heap

libc = ctypes.CDLL(None)
if sys.argv[1] == "shared":
    share_one_heap()
libc.malloc.restype = ctypes.c_void_p
for _ in range(4):
    thread = threading.Thread(target=libc.malloc, args=(1000,))
    thread.start()
    thread.join()
running, go_on = threading.Barrier(5), threading.Event()
def allocate():
    libc.malloc(1000)
    running.wait()
    go_on.wait()
threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads:
    thread.start()
running.wait()
print(open("/proc/self/maps").read().count("---p 00000000 00:00 0"))
go_on.set()
give_back()
"""


def reserved(how: str) -> int:
    """Address ranges that are kept for a heap of their own, or guard a thread's stack."""
    argv = [sys.executable, "-c", THREADS, how]
    return int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has one heap anyway")
def test_threads_get_no_heaps_of_their_own() -> None:
    assert reserved("shared") + 4 <= reserved("as ever")


def test_another_c_library_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    memory.share_one_heap()
    memory.give_back()
