"""Making sure, before anything is started, that the ports are ours: a taken port is told with its holder."""

import errno
import socket
from collections.abc import Iterable

from pilot_agent.errors import PortInUse


def check_free(addresses: Iterable[tuple[str, int, str]]) -> None:
    """`addresses`: (host, port, what it is for). Raises PortInUse for the first that somebody else listens on."""
    for host, port, purpose in addresses:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # Without SO_REUSEPORT, so that another Envoy's listeners count as taken; REUSEADDR passes over TIME_WAIT.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise port_error(error, port, purpose) from None


def port_error(error: OSError, port: int, purpose: str) -> PortInUse:
    """The error to tell for a failed bind."""
    if error.errno == errno.EADDRINUSE:
        return PortInUse(f"port {port} ({purpose}) is in use{_holder(port)}: stop it, or choose another port")
    if error.errno in (errno.EACCES, errno.EPERM):
        return PortInUse(f"port {port} ({purpose}) may not be opened: {error.strerror}; use a port above 1023")
    return PortInUse(f"port {port} ({purpose}) can't be opened: {error.strerror}")


def _holder(port: int) -> str:
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            is_listener = connection.status == psutil.CONN_LISTEN and bool(connection.pid)
            if is_listener and connection.laddr and connection.laddr.port == port:
                return f" by pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:
        pass  # the holder ended meanwhile, or belongs to another user: the port is still in use
    return " by a process of another user or namespace"
