"""The client of istiod's CA: `IstioCertificateService/CreateCertificate` (reference security-xds.md, section 4).

A call comes every twelve hours, so each attempt has a channel of its own: root, client certificate and address are
read anew, and no back-off of an old connection is waited for. grpc is imported at the first call.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from pilot_agent.clock import Clock, chance
from pilot_agent.errors import IdentityError
from pilot_agent.identity.account import Account
from pilot_agent.identity.channel import metadata, open_channel, read_credentials
from pilot_agent.identity.crypto import IN_PROCESS, Crypto
from pilot_agent.identity.options import CaOptions
from pilot_agent.identity.tokens import Tokens
from pilot_agent.log import Scope

if TYPE_CHECKING:
    import grpc

METHOD = "/istio.v1.auth.IstioCertificateService/CreateCertificate"
ATTEMPTS = 5
FIRST_PAUSE_S, PAUSE_JITTER = 0.1, 0.1
ATTEMPT_S = 10.0
"""A CA that takes a connection and says nothing must not hold a renewal for ever."""
LARGEST_ANSWER = 4 * 1024 * 1024
LONGEST_DETAILS = 300
CHANNEL = (("grpc.max_receive_message_length", LARGEST_ANSWER),)

_RETRIED = frozenset("CANCELLED DEADLINE_EXCEEDED RESOURCE_EXHAUSTED ABORTED INTERNAL UNAVAILABLE".split())
_KINDS = {
    "UNAVAILABLE": "ca_unavailable",
    "DEADLINE_EXCEEDED": "ca_timeout",
    "UNAUTHENTICATED": "ca_denied",
    "PERMISSION_DENIED": "ca_denied",
}


class Signer(Protocol):
    """A CA, wherever it is."""

    async def sign(self, csr: bytes, ttl_s: int) -> Sequence[str]:
        """Certificates as PEM, the workload's first, the root last. Raises IdentityError."""


class IstiodCa:
    """Asks the CA that `options` names at the time. `trouble` hears of each attempt that fails before the last."""

    def __init__(
        self,
        options: Callable[[], CaOptions],
        tokens: Tokens,
        account: Account,
        log: Scope,
        clock: Clock,
        trouble: Callable[[str], None] = lambda _: None,
        attempt_s: float = ATTEMPT_S,
        crypto: Crypto = IN_PROCESS,
    ) -> None:
        self._options, self._tokens, self._account = options, tokens, account
        self._log, self._clock, self._trouble, self._attempt_s = log, clock, trouble, attempt_s
        self._crypto = crypto

    async def sign(self, csr: bytes, ttl_s: int) -> Sequence[str]:
        """Raises IdentityError with the CA's address and its words, after ATTEMPTS where another could do better."""
        began = self._clock.monotonic()
        self._account.csr_requests += 1
        try:
            return await self._attempts(csr, ttl_s)
        except IdentityError:
            self._account.csr_failures += 1
            raise
        finally:
            self._account.csr_ms += (self._clock.monotonic() - began) * 1000

    async def _attempts(self, csr: bytes, ttl_s: int) -> Sequence[str]:
        pause = FIRST_PAUSE_S
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._attempt(csr, ttl_s)
            except _Retriable as error:
                if attempt == ATTEMPTS:
                    raise IdentityError(error.kind, str(error)) from None
                self._trouble(str(error))
                self._account.csr_retries += 1
                await asyncio.sleep(pause * (1 + PAUSE_JITTER * (2 * chance() - 1)))
                pause *= 2
        raise AssertionError("unreachable")

    async def _attempt(self, csr: bytes, ttl_s: int) -> Sequence[str]:
        import grpc

        from pilot_agent.identity.messages import chain_in, request_bytes

        options = self._options()
        loop = asyncio.get_running_loop()
        token = await loop.run_in_executor(None, self._tokens.read)
        credentials = await loop.run_in_executor(
            None, lambda: read_credentials(options, self._log, self._clock, self._crypto)
        )
        request = request_bytes(csr, ttl_s, options.cert_signer)
        async with open_channel(options, credentials, CHANNEL) as opened:
            call: Any = opened.unary_unary(METHOD)
            try:
                answer = await call(request, timeout=self._attempt_s, metadata=metadata(options, token))
            except grpc.aio.AioRpcError as error:
                raise _error_of(options, error) from None
        try:
            return chain_in(bytes(answer))
        except ValueError:
            raise IdentityError("ca_answer", f"CA {options.address}: its answer is no certificate response") from None


class _Retriable(IdentityError):
    """Another attempt may do better."""


def _error_of(options: CaOptions, error: "grpc.aio.AioRpcError") -> IdentityError:
    code = error.code().name
    details = " ".join((error.details() or "").split())[:LONGEST_DETAILS]
    make = _Retriable if code in _RETRIED else IdentityError
    return make(_KINDS.get(code, "ca_error"), f"CA {options.address}: {code}: {details or 'no details'}")
