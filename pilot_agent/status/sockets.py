"""Binds the status port, and nothing else: it runs before Envoy is spawned, so it imports only `socket`.

Who accepts on it is `front`; who names the holder of a port that is taken is the caller.
"""

import errno
import socket

BACKLOG = 1024
_NO_IPV6 = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})


def bind(port: int) -> socket.socket:
    """A listening, non-blocking socket on every address of both families, or of IPv4 where there is no IPv6.

    Port 0 takes a free one. Raises OSError when the port is taken or not permitted.
    """
    try:
        return _listen(socket.AF_INET6, "::", port)
    except OSError as error:
        if error.errno not in _NO_IPV6:
            raise
    return _listen(socket.AF_INET, "0.0.0.0", port)  # noqa: S104  (kubelet and Prometheus come from outside)


def _listen(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # An agent that restarts must not wait for the TIME_WAIT of its predecessor's connections.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
