"""A pipe by which the kernel kills a child when the agent is gone, whatever the child has asked of the kernel itself.

The agent holds one end and never writes. The child holds the other one, with a wish for SIGKILL when something happens
to it; the end of the last writer does. Where the agent's end is closed is `process`'s to know.

A parent-death signal alone is not enough: Envoy with hot restart asks for SIGTERM in place of the one it was started
with (seen in 1.40), and looks at SIGTERM when its main thread has time. One whose old epoch died with the agent had
none for up to 10 s: it tries that often, with pauses of a second, to send it a message.
"""

import contextlib
import fcntl
import os
import signal


class Lifeline:
    """`child_fd` is for the child, which must inherit it and keep it open."""

    def __init__(self) -> None:
        self.child_fd, self._agent_fd = os.pipe()

    def bind(self) -> None:
        """Between fork and exec. Makes no difference where the kernel can't do it."""
        with contextlib.suppress(OSError):
            fcntl.fcntl(self.child_fd, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(self.child_fd, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(self.child_fd, fcntl.F_SETFL, os.O_ASYNC)

    def hand_over(self) -> None:
        """The child has its end by now."""
        os.close(self.child_fd)

    def close(self) -> None:
        """Of a child that has ended; one that runs is killed. Closes once."""
        if self._agent_fd >= 0:
            os.close(self._agent_fd)
            self._agent_fd = -1
