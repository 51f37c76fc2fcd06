"""The client of istiod's CA: `IstioCertificateService/CreateCertificate` (reference security-xds.md, section 4).

A call comes every twelve hours, so each attempt has a channel of its own: root, client certificate and address are
read anew, and no back-off of an old connection is waited for. grpc is imported at the first call.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pilot_agent.clock import Clock
from pilot_agent.errors import IdentityError
from pilot_agent.identity.account import Account
from pilot_agent.identity.certificate import check_pair, check_roots, facts_of, parse_chain, stamp
from pilot_agent.identity.options import CaOptions, Files
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
LARGEST_FILE = 1024 * 1024
LONGEST_DETAILS = 300

SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/etc/ssl/cert.pem",
    "/etc/ssl/certs/ca-certificates",
)

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
    ) -> None:
        self._options, self._tokens, self._account = options, tokens, account
        self._log, self._clock, self._trouble, self._attempt_s = log, clock, trouble, attempt_s

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
                await asyncio.sleep(pause * (1 + PAUSE_JITTER * (2 * _chance() - 1)))
                pause *= 2
        raise AssertionError("unreachable")

    async def _attempt(self, csr: bytes, ttl_s: int) -> Sequence[str]:
        import grpc

        from pilot_agent.identity.messages import chain_in, request_bytes

        options = self._options()
        loop = asyncio.get_running_loop()
        token = await loop.run_in_executor(None, self._tokens.read)
        channel = await loop.run_in_executor(None, lambda: _channel_arguments(options, self._log, self._clock))
        request = request_bytes(csr, ttl_s, options.cert_signer)
        async with _open(options, *channel) as opened:
            call: Any = opened.unary_unary(METHOD)
            try:
                answer = await call(request, timeout=self._attempt_s, metadata=_metadata(options, token))
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


def _metadata(options: CaOptions, token: str) -> tuple[tuple[str, str], ...]:
    """gRPC takes names in lower case only."""
    credentials = (("authorization", f"Bearer {token}"),) if token else ()
    return (*credentials, ("clusterid", options.cluster_id), *options.headers)


def _channel_arguments(options: CaOptions, log: Scope, clock: Clock) -> tuple[bytes | None, bytes | None, bytes | None]:
    """Root, client key and client chain, read now. Raises IdentityError."""
    if options.is_plaintext:
        return None, None, None
    root = _root(options)
    key, chain = _client(options.client, log, clock) if options.client is not None else (None, None)
    return root, key, chain


def _root(options: CaOptions) -> bytes:
    what = f"the root certificate for the CA, {options.root or 'the bundle of the system'},"
    path = options.root or system_bundle()
    if path is None:
        raise IdentityError("ca_root", "this system has no bundle of root certificates: set CA_ROOT_CA to a file")
    try:
        roots = check_roots(read_file(path), what)
    except OSError as error:
        raise IdentityError("ca_root", f"{what} can't be read: {error.strerror}") from None
    except IdentityError as error:
        raise IdentityError("ca_root", str(error)) from None
    return "\n".join(roots.blocks).encode()  # gRPC reads no further than the first block it can't use


def _client(files: Files, log: Scope, clock: Clock) -> tuple[bytes | None, bytes | None]:
    """The provisioned pair; without one that is good the token alone must do (a warning). A key that does not load
    fails the attempt, as a TLS handshake with it would."""
    assert files.chain is not None and files.key is not None
    what = f"the provisioned certificate {files.chain}"
    try:
        chain = read_file(files.chain)
        facts = facts_of(parse_chain(chain, what)[0])
        if facts.not_after <= clock.wall():
            raise IdentityError("expired", f"{what} expired at {stamp(facts.not_after)}")
    except OSError as error:
        log.warn(f"{what} can't be read: {error.strerror}; the CA is asked with the token only")
        return None, None
    except IdentityError as error:
        log.warn(f"{error}; the CA is asked with the token only")
        return None, None
    try:
        key = read_file(files.key)
        check_pair(chain, key, what, clock.wall())
    except OSError as error:
        raise IdentityError("client_certificate", f"the key {files.key} can't be read: {error.strerror}") from None
    except IdentityError as error:
        raise IdentityError("client_certificate", str(error)) from None
    return key, chain


def _open(options: CaOptions, root: bytes | None, key: bytes | None, chain: bytes | None) -> "grpc.aio.Channel":
    import grpc

    arguments: list[tuple[str, int | str]] = [
        ("grpc.max_receive_message_length", LARGEST_ANSWER),
        ("grpc.use_local_subchannel_pool", 1),  # else a failed connection's back-off is inherited
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
    ]
    target = f"dns:///{options.address}"
    if options.is_plaintext:
        return grpc.aio.insecure_channel(target, arguments)
    arguments.append(("grpc.ssl_target_name_override", options.server_name))
    arguments.append(("grpc.default_authority", options.server_name))
    return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(root, key, chain), arguments)


def system_bundle() -> Path | None:
    """The operating system's root certificates: gRPC would take a bundle of its own."""
    return next((path for path in map(Path, SYSTEM_BUNDLES) if path.is_file()), None)


def read_file(path: Path) -> bytes:
    """A whole file of LARGEST_FILE bytes at most. Raises OSError."""
    with path.open("rb") as file:
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise OSError(27, f"it is larger than {LARGEST_FILE} bytes", str(path))
    return content


def _chance() -> float:
    return int.from_bytes(os.urandom(4), "big") / 2**32
