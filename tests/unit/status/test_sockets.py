import errno
import socket

import pytest

from pilot_agent.status import sockets


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_both_families_reach_the_one_socket(family: socket.AddressFamily, host: str) -> None:
    with sockets.bind(0) as listener, socket.socket(family) as client:
        client.connect((host, listener.getsockname()[1]))


def test_a_taken_port_is_an_error_and_not_a_reason_for_ipv4() -> None:
    with sockets.bind(0) as listener, pytest.raises(OSError) as caught:
        sockets.bind(listener.getsockname()[1])
    assert caught.value.errno == errno.EADDRINUSE


def test_without_ipv6_it_listens_on_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def without_ipv6(family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, kind)

    monkeypatch.setattr(socket, "socket", without_ipv6)
    with sockets.bind(0) as listener:
        assert listener.getsockname()[0] == "0.0.0.0"
