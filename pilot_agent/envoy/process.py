"""One child process: spawned into a group of its own, killed by the kernel when the agent dies, its end described.

Uses neither asyncio nor threads: Envoy is spawned before asyncio is imported. Children are spawned only from the main
thread, since the parent-death signal is bound to the thread that forked. It is the second net: see `lifeline`.
"""

import ctypes
import os
import signal
import subprocess
from pathlib import Path
from typing import NamedTuple

from pilot_agent.clock import Clock
from pilot_agent.envoy.command import Launch, epoch_arguments
from pilot_agent.envoy.epoch import Epoch
from pilot_agent.envoy.lifeline import Lifeline
from pilot_agent.errors import EXIT_SIGNAL_BASE, SettingsError

_PR_SET_PDEATHSIG = 1


class ExitFacts(NamedTuple):
    """How a child ended: `code` or `signal` (one is None), after `uptime` seconds."""

    code: int | None
    signal: int | None
    uptime: float

    def __str__(self) -> str:
        if self.signal is not None:
            return f"killed by signal {self.signal} ({_signal_name(self.signal)})"
        return f"exit code {self.code}"

    @property
    def signal_name(self) -> str:
        """Such as SIGKILL; empty when no signal ended it."""
        return _signal_name(self.signal) if self.signal is not None else ""

    @property
    def agent_code(self) -> int:
        """What the agent exits with when it gives up on this end: Envoy's own code, or 128 + signal."""
        return EXIT_SIGNAL_BASE + self.signal if self.signal is not None else self.code or 0


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


class Child:
    """A running child. Whoever spawns it owns it: `poll` is the only thing that reaps it."""

    def __init__(self, launch: Launch, clock: Clock, *, is_quiet: bool = False) -> None:
        """Spawn what `launch` says, with standard error as a pipe (`stderr_fd`), standard output inherited, or
        thrown away when `is_quiet`.

        Raises SettingsError when the binary can't be executed.
        """
        self.argv = list(launch.argv)
        self._clock = clock
        self.started_at = clock.monotonic()
        self._facts: ExitFacts | None = None
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        parent = os.getpid()
        self._lifeline = Lifeline()

        def die_with_parent() -> None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            self._lifeline.bind()
            if os.getppid() != parent:  # the agent died before the lines above took effect
                os._exit(EXIT_SIGNAL_BASE + signal.SIGKILL)

        try:
            self._popen = subprocess.Popen(
                self.argv,
                env=dict(launch.variables),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if is_quiet else None,
                stderr=subprocess.PIPE,
                process_group=0,
                user=launch.user,
                group=launch.user,
                extra_groups=None if launch.user is None else [],
                pass_fds=[self._lifeline.child_fd],
                preexec_fn=die_with_parent,  # noqa: PLW1509 - a few system calls, no lock taken
            )
        except OSError as error:
            self._lifeline.close()
            raise SettingsError(f"{self.argv[0]} can't be executed: {error.strerror}") from None
        finally:
            self._lifeline.hand_over()
        self.pid = self._popen.pid

    @property
    def stderr_fd(self) -> int:
        assert self._popen.stderr is not None
        return self._popen.stderr.fileno()

    def close(self) -> None:
        """What the agent has of a child that has ended; one that runs is killed by it."""
        self._lifeline.close()
        if self._popen.stderr is not None:
            self._popen.stderr.close()

    def wait(self) -> tuple[int, str]:
        """Block until it has ended: exit code (128 + n for a signal) and standard error. Only before the event loop."""
        _, output = self._popen.communicate()
        self._lifeline.close()
        code = self._popen.returncode
        return (EXIT_SIGNAL_BASE - code if code < 0 else code), output.decode(errors="replace")

    def poll(self) -> ExitFacts | None:
        """The facts of its end, None while it runs. Reaps it, once."""
        if self._facts is None:
            # Not Popen.poll(): that takes a child reaped by somebody else for one that ended with 0.
            pid, raw = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                status = self._popen.returncode = os.waitstatus_to_exitcode(raw)
                uptime = self._clock.monotonic() - self.started_at
                self._facts = ExitFacts(None, -status, uptime) if status < 0 else ExitFacts(status, None, uptime)
        return self._facts

    def signal(self, number: int) -> None:
        """Send a signal to the child alone; nothing happens when it has ended."""
        if self.poll() is None:
            self._popen.send_signal(number)

    def kill_group(self) -> None:
        """SIGKILL to the child and whatever it started."""
        if self.poll() is None:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def spawn(launch: Launch, epoch: Epoch, drain_seconds: int, base_id_path: Path, clock: Clock) -> Child:
    """Start Envoy as `epoch`. Raises SettingsError when the binary can't be executed."""
    if launch.user is not None and not base_id_path.exists():
        # Envoy writes its base-id there, into a directory of the agent's.
        base_id_path.touch()
        os.chown(base_id_path, launch.user, launch.user)
    argv = [*launch.argv, *epoch_arguments(epoch, base_id_path, drain_seconds)]
    return Child(launch._replace(argv=argv), clock)
