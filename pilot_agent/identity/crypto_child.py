"""Keys and certificates handled by a child of the agent, which is there only while it is needed (decision 12).

Spawned at the first call and ended after a while without one; a child that dies or hangs is an IdentityError of kind
`crypto` for every call that waits for it, and the next call has a new one. Any thread may call.
"""

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from pilot_agent.errors import IdentityError
from pilot_agent.identity.certificate import CertificateFacts, Issued, Roots
from pilot_agent.identity.crypto import LocallySigned
from pilot_agent.identity.crypto_process import Spawned, spawn
from pilot_agent.identity.crypto_server import packed, read_message
from pilot_agent.identity.keys import KeySpec, SigningRequest

IDLE_S = 5.0
CALL_WITHIN_S = 30.0
"""A check takes milliseconds; a container may have a hundredth of a CPU."""
KEY_WITHIN_S = 300.0
"""An RSA key is a matter of luck, and one of 8192 bits of minutes on a slow machine."""
TICK_S = 0.25
"""How often to look whether a call is overdue, or nothing was called for a while; only while there is a child."""
END_WITHIN_S = 2.0
PART_WITHIN_S = 30.0
"""For the rest of a message that has begun."""


class Owner(Protocol):
    """Who reaps the agent's children (`supervise.reaper`)."""

    def held(self) -> AbstractContextManager[Any]:
        """While nothing is reaped: a child that ends at once must have its owner by then."""

    def own(self, pid: int, collect: Callable[[], bool]) -> None: ...


class Nobody:
    """Where nobody but us waits for children."""

    def held(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def own(self, pid: int, collect: Callable[[], bool]) -> None:
        pass


class CryptoChild:
    """`crypto.Crypto`, in a child. `close` it; what is called later is refused."""

    def __init__(
        self,
        argv: Sequence[str] | None = None,
        spawned: Spawned | None = None,
        idle_s: float = IDLE_S,
        call_within_s: float = CALL_WITHIN_S,
        key_within_s: float = KEY_WITHIN_S,
    ) -> None:
        """`spawned` is the first child, where there is one already."""
        self._argv, self._idle_s = argv, idle_s
        self._call_within_s, self._key_within_s = call_within_s, key_within_s
        self._owner: Owner = Nobody()
        self._lock = threading.Lock()
        self._running = None if spawned is None else _Running(spawned, idle_s, self._lock)
        self._is_closed = False

    def owned_by(self, owner: Owner) -> None:
        """From now on; of the child that runs already, too."""
        with self._lock, owner.held():
            self._owner = owner
            if self._running is not None:
                owner.own(self._running.pid, self._running.poll)

    def close(self) -> None:
        """End the child, and every call under way."""
        with self._lock:
            self._is_closed, running = True, self._running
        if running is not None:
            running.end()

    @property
    def pid(self) -> int | None:
        """Of the child there is."""
        with self._lock:
            return None if self._running is None or self._running.is_over else self._running.pid

    # The operations

    def begin_request(self, spec: KeySpec, spiffe_id: str) -> "Future[SigningRequest]":
        """`make_request`, without waiting for it."""
        made: Future[SigningRequest] = Future()
        made.set_running_or_notify_cancel()

        def take(answer: "Future[Any]") -> None:
            error = answer.exception()
            if error is not None:
                made.set_exception(error)
            else:
                made.set_result(SigningRequest(*answer.result()))

        self._submit("make_request", (tuple(spec), spiffe_id), self._key_within_s).add_done_callback(take)
        return made

    def make_request(self, spec: KeySpec, spiffe_id: str) -> SigningRequest:
        return self.begin_request(spec, spiffe_id).result()

    def first_facts(self, chain: bytes, what: str) -> CertificateFacts:
        return CertificateFacts(*self._call("first_facts", chain, what))

    def check_pair(self, chain: bytes, key: bytes, what: str, now: float) -> CertificateFacts:
        return CertificateFacts(*self._call("check_pair", chain, key, what, now))

    def check_roots(self, pem: bytes, what: str) -> Roots:
        return Roots(*self._call("check_roots", pem, what))

    def check_crl(self, pem: bytes, what: str) -> None:
        self._call("check_crl", pem, what)

    def check_issued(self, chain: bytes, key: bytes, root: bytes, bundle: Sequence[str], now: float) -> Issued:
        facts, roots, unverified = self._call("check_issued", chain, key, root, list(bundle), now)
        return Issued(CertificateFacts(*facts), Roots(*roots), unverified)

    def why_unverified(self, chain: bytes, roots: Sequence[str]) -> str | None:
        why: str | None = self._call("why_unverified", chain, list(roots))
        return why

    def sign_locally(self, directory: Path, csr: bytes, ttl_s: float, now: float) -> LocallySigned:
        chain, warnings = self._call("sign_locally", os.fspath(directory), csr, ttl_s, now)
        return chain, warnings

    def _call(self, operation: str, *arguments: Any) -> Any:
        return self._submit(operation, arguments, self._call_within_s).result()

    def _submit(self, operation: str, arguments: tuple[Any, ...], within_s: float) -> "Future[Any]":
        try:
            with self._lock:
                running = self._current()
                number, answer = running.expect(operation, within_s)
        except IdentityError as error:
            answer = Future()
            answer.set_exception(error)
            return answer
        running.send(packed((number, operation, arguments)))
        return answer

    def _current(self) -> "_Running":
        """The child, spawned where there is none. Raises IdentityError."""
        if self._is_closed:
            raise IdentityError("crypto", "the agent is ending: nothing is done with keys and certificates any more")
        if self._running is None or self._running.is_over:
            try:
                with self._owner.held():
                    self._running = _Running(spawn(self._argv), self._idle_s, self._lock)
                    self._owner.own(self._running.pid, self._running.poll)
            except OSError as error:
                raise IdentityError(
                    "crypto", f"the child process for keys and certificates can't be started: {error.strerror}"
                ) from None
        return self._running


class _Expected:
    __slots__ = ("answer", "overdue_at", "what")

    def __init__(self, what: str, overdue_at: float) -> None:
        self.what, self.overdue_at = what, overdue_at
        self.answer: Future[Any] = Future()
        self.answer.set_running_or_notify_cancel()  # nobody can take it back


class _Running:
    """One child, and the thread that reads its answers. `lock` is its client's, and guards what is expected of it."""

    def __init__(self, spawned: Spawned, idle_s: float, lock: threading.Lock) -> None:
        self._idle_s, self._lock = idle_s, lock
        self._sending, self._reaping = threading.Lock(), threading.Lock()
        self._expected: dict[int, _Expected] = {}
        self._count = 0
        self._used_at = time.monotonic()
        self.is_over = False
        """Nothing may be expected of it any more."""
        self._why = ""
        self._popen, self._socket = spawned
        self.pid = self._popen.pid
        self._socket.settimeout(PART_WITHIN_S)
        self._reader = threading.Thread(target=self._read, name="crypto", daemon=True)
        self._reader.start()

    def expect(self, what: str, within_s: float) -> "tuple[int, Future[Any]]":
        """Under the lock: a number to `send` a call with, and what will have its answer."""
        self._count += 1
        self._used_at = time.monotonic()
        expected = self._expected[self._count] = _Expected(what, self._used_at + within_s)
        return self._count, expected.answer

    def send(self, call: bytes) -> None:
        """What goes wrong is found by the reader."""
        try:
            with self._sending:
                self._socket.sendall(call)
        except OSError:
            pass

    def end(self) -> None:
        self._kill()
        self._reader.join(END_WITHIN_S)

    def poll(self) -> bool:
        """Whether it has ended; reaps it, once, whoever asks."""
        with self._reaping:
            if self._popen.returncode is None:
                try:
                    pid, raw = os.waitpid(self.pid, os.WNOHANG)
                except ChildProcessError:
                    pid, raw = self.pid, 0  # whoever started us ignores SIGCHLD: the kernel has reaped it
                if pid:
                    self._popen.returncode = os.waitstatus_to_exitcode(raw)
            return self._popen.returncode is not None

    # The thread

    def _read(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        try:
            while not self._is_to_end():
                if poll.poll(TICK_S * 1000) and not self._take_answer():
                    break
        except ConnectionError:
            pass  # it is gone, and had not read everything
        except (OSError, EOFError, ValueError, TypeError, LookupError) as error:
            self._why = f"its answer can't be read: {error}"
        finally:
            self._bury()

    def _take_answer(self) -> bool:
        """False when there will be no more."""
        message = read_message(self._socket.recv)
        if message is None:
            return False
        number, kind, result = message
        with self._lock:
            expected = self._expected.pop(number)
            self._used_at = time.monotonic()
        if kind:
            expected.answer.set_exception(IdentityError(kind, result))
        else:
            expected.answer.set_result(result)
        return True

    def _is_to_end(self) -> bool:
        now = time.monotonic()
        with self._lock:
            overdue = next((each for each in self._expected.values() if each.overdue_at <= now), None)
            if overdue is not None:
                self._why = f"it did not answer {overdue.what} in time, and was killed"
            self.is_over = overdue is not None or (not self._expected and now - self._used_at > self._idle_s)
            return self.is_over

    def _bury(self) -> None:
        with self._lock:
            self.is_over = True
        self._shut_down()
        code = self._reaped()
        with self._lock:
            lost, self._expected = list(self._expected.values()), {}
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        for each in lost:
            why = f"the child process for keys and certificates failed at {each.what}: {self._why or how}"
            each.answer.set_exception(IdentityError("crypto", why))

    def _shut_down(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes who is sending, before the descriptor goes
        except OSError:
            pass
        with self._sending:
            self._socket.close()

    def _reaped(self) -> int:
        """Its exit code, -n for signal n. It has ended, or is made to."""
        if self._why:
            self._kill()
        deadline = time.monotonic() + END_WITHIN_S
        while not self.poll():
            if time.monotonic() > deadline:
                self._kill()
            time.sleep(0.005)
        code: int = self._popen.returncode
        return code

    def _kill(self) -> None:
        with self._reaping:
            if self._popen.returncode is None:
                os.kill(self.pid, signal.SIGKILL)
