"""Looking from outside until something is so, every millisecond: a port that answers 200, a program that runs."""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

STEP_S = 0.001
LIMIT_S = 30.0


def let_keep_bytecode() -> None:
    """An installed agent has its modules compiled. Where Python may not keep them, each start would compile them anew,
    which takes longer than all the rest, and 10 MiB."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def until(is_so: Callable[[], bool]) -> float:
    """The monotonic time when `is_so` was first true. Raises TimeoutError after LIMIT_S."""
    limit = time.monotonic() + LIMIT_S
    while not is_so():
        if time.monotonic() > limit:
            raise TimeoutError(f"not within {LIMIT_S} s")
        time.sleep(STEP_S)
    return time.monotonic()


def until_answered(port: int, host: str = "x", path: str = "/healthz/ready") -> float:
    return until(lambda: status_of(port, host, path) == 200)


def status_of(port: int, host: str = "x", path: str = "/healthz/ready") -> int | None:
    """The status of one request on a new connection; None when there is no answer."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = connection.recv(4096)
    except OSError:
        return None
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else None


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def runs(pid: int, binary: Path) -> bool:
    """Whether `pid` has a child that executes `binary` (and is no fork of the agent any more)."""
    for child in children(pid):
        try:
            if Path(f"/proc/{child}/exe").readlink() == binary:
                return True
        except OSError:
            continue
    return False


def resident_mib(pid: int) -> float:
    return _memory_mib(pid, "VmRSS")


def peak_mib(pid: int) -> float:
    """The most that was resident since its exec."""
    return _memory_mib(pid, "VmHWM")


def _memory_mib(pid: int, field: str) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
