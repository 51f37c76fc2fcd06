"""Ports that somebody else has: noticed before anything is started, and told with their holder."""

import errno
import os
import socket

import psutil
import pytest

from pilot_agent.errors import EXIT_SETTINGS, PortInUse
from pilot_agent.supervise.ports import check_free, port_error
from tests.support.ports import free_ports


def test_free_ports_are_free() -> None:
    check_free([("127.0.0.1", port, "it") for port in free_ports(2)])
    check_free([("::1", free_ports(1, "::1")[0], "it"), ("::", free_ports(1)[0], "it")])
    check_free([])


@pytest.mark.parametrize("wanted", ["127.0.0.1", "0.0.0.0", "::"])
def test_a_port_somebody_listens_on_is_told_with_its_holder(wanted: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortInUse) as refused:
            check_free([("127.0.0.1", free_ports(1)[0], "free"), (wanted, port, "proxyAdminPort, Envoy's admin")])
    assert str(refused.value) == (
        f"port {port} (proxyAdminPort, Envoy's admin) is in use by pid {os.getpid()} "
        f"({psutil.Process().name()}): stop it, or choose another port"
    )
    assert refused.value.exit_code == EXIT_SETTINGS


def test_a_listener_that_shares_its_port_counts_as_taken() -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as server, pytest.raises(PortInUse):
        check_free([("127.0.0.1", server.getsockname()[1], "it")])


def test_connections_that_are_fading_away_do_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = server.accept()
            accepted.close()  # it closes first, so that its side keeps the port in TIME_WAIT
            assert client.recv(1) == b""
    check_free([("127.0.0.1", port, "it")])


def test_an_address_of_another_host_is_told() -> None:
    port = free_ports(1)[0]
    with pytest.raises(PortInUse) as refused:
        check_free([("192.0.2.1", port, "it")])
    assert str(refused.value) == f"port {port} (it) can't be opened: Cannot assign requested address"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_a_port_that_may_not_be_opened(number: int) -> None:
    told = port_error(OSError(number, os.strerror(number)), 80, "statusPort, the agent's own")
    assert str(told) == (
        f"port 80 (statusPort, the agent's own) may not be opened: {os.strerror(number)}; use a port above 1023"
    )


def test_a_holder_that_cannot_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    in_use = OSError(errno.EADDRINUSE, "Address already in use")
    wanted = "port 81 (it) is in use by a process of another user or namespace: stop it, or choose another port"
    monkeypatch.setattr(psutil, "net_connections", lambda _: [])
    assert str(port_error(in_use, 81, "it")) == wanted

    def refused(_: str) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", refused)
    assert str(port_error(in_use, 81, "it")) == wanted
