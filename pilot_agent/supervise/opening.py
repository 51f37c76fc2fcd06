"""What Envoy must find at its start: sockets that listen for SDS and xDS, or files in their place; then the first key.

Light imports only: the key is made by a child, on the other core, while Envoy boots.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pilot_agent.errors import SettingsError
from pilot_agent.identity.options import IdentityOptions
from pilot_agent.log import Log
from pilot_agent.settings.paths import FILES_SDS_SOCKET, SDS_DIRECTORY, WORKLOAD_SDS_DIRECTORY, XDS_SOCKET_NAME
from pilot_agent.supervise.desired import Desired
from pilot_agent.uds.listener import Listener
from pilot_agent.uds.probe import is_agent, server_on

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from pilot_agent.identity.crypto_child import CryptoChild
    from pilot_agent.identity.keys import SigningRequest
    from pilot_agent.sds.files import SecretFiles

FILE_SECRETS = ("default", "ROOTCA")
WORKERS = 2
"""Threads for keys, files and judging them: a key of 4096 bits must not hold up a changed file."""


class OpenedIdentity(NamedTuple):
    """`listener` in a mesh, `files` in local mode. `request` is the first key, under way; None where no CA is asked."""

    listener: Listener | None
    files: "SecretFiles | None"
    crypto: "CryptoChild | None" = None
    executor: "ThreadPoolExecutor | None" = None
    request: "Future[SigningRequest] | None" = None


def open_identity(desired: Desired, config_path: Path, log: Log, undo: ExitStack) -> OpenedIdentity | None:
    """None where this proxy has no identity: local mode without a CA and without certificates. Raises SettingsError.

    Without an Envoy nobody asks over SDS: an application reads the files of OUTPUT_CERTS.
    """
    options = desired.identity
    if not desired.settings.has_envoy:
        return OpenedIdentity(None, None)
    if not desired.settings.is_local:
        listener = listen(socket_path(options), "SDS")
        undo.callback(listener.close)
        return OpenedIdentity(listener, None)
    if not options.has_ca and not any(path.exists() for path in options.certs.all):
        return None
    from pilot_agent.sds.files import SecretFiles

    files = SecretFiles(
        config_path / SDS_DIRECTORY, desired.launch.user, lambda: desired.identity.provider, log.scope("sds")
    )
    undo.callback(files.remove)
    try:
        files.make_place(FILE_SECRETS)
    except OSError as error:
        raise SettingsError(f"configPath {config_path}: {error.filename} can't be written: {error.strerror}") from None
    return OpenedIdentity(None, files)


def open_xds(desired: Desired, undo: ExitStack) -> Listener | None:
    """Where Envoy will ask for its configuration; None in local mode, where that is files. Raises SettingsError.

    The path is the one of the bootstrap, relative where that is: a short one fits into a socket's address.
    """
    if desired.settings.is_local:
        return None
    listener = listen(Path(desired.settings.proxy_config.config_path) / XDS_SOCKET_NAME, "xDS")
    undo.callback(listener.close)
    return listener


def socket_path(options: IdentityOptions) -> Path:
    """Where we serve: the workload's socket, or beside it when somebody else has that. As Envoy's bootstrap says it."""
    return Path(FILES_SDS_SOCKET) if options.is_files_only else Path(WORKLOAD_SDS_DIRECTORY) / "socket"


def listen(path: Path, what: str) -> Listener:
    """Raises SettingsError when somebody is served there: binding would take the socket away without a word."""
    pid = server_on(path) if path.exists() else None
    if pid is not None:
        who = f"another pilot-agent, pid {pid}," if is_agent(path, pid) else f"another process, pid {pid},"
        raise SettingsError(f"{what}: {who} serves {path}: end it first, or start this one in another directory")
    return Listener(path, what)


def begin_request(opened: OpenedIdentity | None, desired: Desired, undo: ExitStack) -> OpenedIdentity | None:
    """Have the child for keys and certificates, which imports its library while Envoy boots, and the first key made
    where the first certificate will be a CA's.
    """
    if opened is None:
        return None
    from pilot_agent.identity.crypto_process import spawn

    try:
        spawned = spawn()
    except OSError:
        spawned = None  # the first call tries again, and says why it can't
    from concurrent.futures import ThreadPoolExecutor

    from pilot_agent.identity.crypto_child import CryptoChild

    crypto = CryptoChild(spawned=spawned)
    undo.callback(crypto.close)
    executor = ThreadPoolExecutor(WORKERS, thread_name_prefix="identity")
    options, request = desired.identity, None
    if options.has_ca and not all(path.exists() for path in options.certs.all):
        request = crypto.begin_request(options.key, options.spiffe_id)
    return opened._replace(crypto=crypto, executor=executor, request=request)
