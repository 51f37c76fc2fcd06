"""A gRPC channel to the CA or to istiod: what it is trusted by, who we are to it, the headers of a call.

Everything is read when the channel is made, so a changed root or client certificate counts from the next one on.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pilot_agent.clock import Clock
from pilot_agent.errors import IdentityError
from pilot_agent.identity.certificate import stamp
from pilot_agent.identity.crypto import IN_PROCESS, Crypto
from pilot_agent.identity.options import Files
from pilot_agent.log import Scope
from pilot_agent.values import HostPort

if TYPE_CHECKING:
    import ssl

    import grpc

LARGEST_FILE = 1024 * 1024

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


class Server(Protocol):
    """Whom to call. `what` names it to people; `root` None: the system's; `client`: files of our own certificate."""

    @property
    def what(self) -> str: ...
    @property
    def address(self) -> HostPort: ...
    @property
    def is_plaintext(self) -> bool: ...
    @property
    def server_name(self) -> str: ...
    @property
    def root(self) -> Path | None: ...
    @property
    def client(self) -> Files | None: ...
    @property
    def cluster_id(self) -> str: ...
    @property
    def headers(self) -> tuple[tuple[str, str], ...]: ...


class Credentials(NamedTuple):
    """PEM for TLS."""

    root: bytes | None = None
    key: bytes | None = None
    chain: bytes | None = None

    def __repr__(self) -> str:
        return "Credentials(...)"  # it may hold a key, which must reach no log


def metadata(server: Server, token: str) -> tuple[tuple[str, str], ...]:
    """gRPC takes names in lower case only."""
    credentials = (("authorization", f"Bearer {token}"),) if token else ()
    return (*credentials, ("clusterid", server.cluster_id), *server.headers)


def read_credentials(server: Server, log: Scope, clock: Clock, crypto: Crypto = IN_PROCESS) -> Credentials:
    """What the channel needs, read now. Raises IdentityError. Blocking."""
    if server.is_plaintext:
        return Credentials()
    root = _root(server, crypto)
    key, chain = _client(server.client, server.what, log, clock, crypto) if server.client is not None else (None, None)
    return Credentials(root, key, chain)


def _root(server: Server, crypto: Crypto) -> bytes:
    what = f"the root certificate for {server.what}, {server.root or 'the bundle of the system'},"
    path = server.root or system_bundle()
    if path is None:
        raise IdentityError("ca_root", "this system has no bundle of root certificates: name a file instead of SYSTEM")
    try:
        roots = crypto.check_roots(read_file(path), what)
    except OSError as error:
        raise IdentityError("ca_root", f"{what} can't be read: {error.strerror}") from None
    except IdentityError as error:
        raise _as("ca_root", error) from None
    return "\n".join(roots.blocks).encode()  # gRPC reads no further than the first block it can't use


def _as(kind: str, error: IdentityError) -> IdentityError:
    """What is wrong with a file, said of what it is for; a check that could not be done tells nothing of the file."""
    return error if error.kind == "crypto" else IdentityError(kind, str(error))


def _client(files: Files, who: str, log: Scope, clock: Clock, crypto: Crypto) -> tuple[bytes | None, bytes | None]:
    """The provisioned pair; without one that is good the token alone must do (a warning). A key that does not load
    fails the attempt, as a TLS handshake with it would."""
    assert files.chain is not None and files.key is not None
    what = f"the provisioned certificate {files.chain}"
    try:
        chain = read_file(files.chain)
        facts = crypto.first_facts(chain, what)
        if facts.not_after <= clock.wall():
            raise IdentityError("expired", f"{what} expired at {stamp(facts.not_after)}")
    except OSError as error:
        log.warn(f"{what} can't be read: {error.strerror}; {who} is asked with the token only")
        return None, None
    except IdentityError as error:
        if error.kind == "crypto":
            raise
        log.warn(f"{error}; {who} is asked with the token only")
        return None, None
    try:
        key = read_file(files.key)
        crypto.check_pair(chain, key, what, clock.wall())
    except OSError as error:
        raise IdentityError("client_certificate", f"the key {files.key} can't be read: {error.strerror}") from None
    except IdentityError as error:
        raise _as("client_certificate", error) from None
    return key, chain


def tls_context(credentials: Credentials, ciphers: str | None = None) -> "ssl.SSLContext":
    """For a connection of our own that checks the server by `root` alone. Blocking, for a millisecond or two.

    Raises ssl.SSLError, an OSError, for PEM or ciphers (OpenSSL's list, TLS 1.2 only) that OpenSSL does not take.
    """
    import ssl

    assert credentials.root is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an intermediate may be the root, as for gRPC
    context.load_verify_locations(cadata=credentials.root.decode())
    if ciphers is not None:
        context.set_ciphers(ciphers)
    if credentials.key is not None and credentials.chain is not None:
        # Python takes a pair only from files: one that has no name and no disk behind it.
        with os.fdopen(os.memfd_create("pair"), "wb") as file:
            file.write(credentials.key + b"\n" + credentials.chain)
            file.flush()
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
    return context


def open_channel(
    server: Server, credentials: Credentials, arguments: Sequence[tuple[str, int | str]] = ()
) -> "grpc.aio.Channel":
    """A channel that shares nothing with another one. Close it."""
    import grpc

    options: list[tuple[str, int | str]] = [
        ("grpc.use_local_subchannel_pool", 1),  # else a failed connection's back-off is inherited
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
        *arguments,
    ]
    target = f"dns:///{server.address}"
    if server.is_plaintext:
        return grpc.aio.insecure_channel(target, options)
    options.append(("grpc.ssl_target_name_override", server.server_name))
    options.append(("grpc.default_authority", server.server_name))
    made = grpc.ssl_channel_credentials(credentials.root, credentials.key, credentials.chain)
    return grpc.aio.secure_channel(target, made, options)


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
