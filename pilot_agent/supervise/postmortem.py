"""Explaining why an Envoy ended, and what a hung one was doing, from what the kernel and Envoy itself left behind."""

import signal
from pathlib import Path
from typing import NamedTuple

from pilot_agent.envoy.process import ExitFacts
from pilot_agent.node.cgroup import Memory

RESTART_REASONS = ("exit", "crash", "oom", "hung", "hot-restart", "full-restart")


class Verdict(NamedTuple):
    """`reason` is one of RESTART_REASONS, `text` a sentence for people."""

    reason: str
    text: str


def explain(
    who: str, facts: ExitFacts, *, is_hung: bool, last_words: str, before: Memory | None, after: Memory | None
) -> Verdict:
    """`before` and `after`: the cgroup's memory facts at the spawn and now; an OOM kill in between was this one."""
    text = f"{who} ended after {facts.uptime:.1f} s: {facts}"
    if is_hung:
        return Verdict("hung", f"{text}, sent by the agent because Envoy hung")
    if facts.signal == signal.SIGKILL:
        if before is not None and after is not None and after.oom_kills > before.oom_kills:
            limit = f"a memory limit of {after.limit} bytes" if after.limit else "no memory limit of its own"
            return Verdict(
                "oom", f"{text}: out of memory, chosen by the kernel's OOM killer (the container has {limit})"
            )
        return Verdict("crash", f"{text}; the kernel counts no OOM kill here, so a process sent it")
    if last_words:
        text = f"{text}; its last words: {last_words}"
    return Verdict("exit" if facts.code == 0 else "crash", text)


def evidence(pid: int, proc: Path = Path("/proc")) -> str:
    """What the kernel knows of a process that does not answer: state and where each kind of thread waits."""
    waits: dict[str, int] = {}
    state = "gone"
    for task in sorted((proc / str(pid) / "task").glob("*")):
        try:
            state = next(
                line.split(":", 1)[1].strip()
                for line in (task / "status").read_text(encoding="utf-8", errors="replace").splitlines()
                if line.startswith("State:")
            )
            wait = (task / "wchan").read_text(encoding="ascii").strip() or "running"
        except (OSError, StopIteration):
            continue  # the thread ended while we looked
        waits[wait] = waits.get(wait, 0) + 1
    threads = ", ".join(f"{count} in {wait}" for wait, count in sorted(waits.items()))
    return f"pid {pid} is {state}; threads: {threads or 'none'}"
