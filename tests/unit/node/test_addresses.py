"""The node's addresses, their order, and the address family that follows from them."""

import socket
from typing import NamedTuple

import psutil
import pytest

from pilot_agent.node.addresses import (
    EXCLUDE_INTERFACES_ANNOTATION,
    Family,
    family_of,
    has_unspecified_address,
    is_address,
    node_addresses,
    unmapped,
)


class Stats(NamedTuple):
    isup: bool
    flags: str = ""


class Entry(NamedTuple):
    family: int
    address: str


def v4(address: str) -> Entry:
    return Entry(socket.AF_INET, address)


def v6(address: str) -> Entry:
    return Entry(socket.AF_INET6, address)


class Interfaces:
    """What psutil would say of this machine's network."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.addresses: dict[str, list[Entry]] = {"lo": [v4("127.0.0.1"), v6("::1")]}
        self.down: set[str] = set()
        patch.setattr(psutil, "net_if_addrs", lambda: self.addresses)
        self.without_carrier: set[str] = set()
        self.order: list[str] = []
        patch.setattr(psutil, "net_if_stats", self._stats)
        patch.setattr(socket, "if_nametoindex", self._index)

    def _stats(self) -> dict[str, Stats]:
        return {name: self._state(name) for name in self.addresses if ":" not in name}

    def _state(self, name: str) -> Stats:
        flags = "loopback" if name == "lo" else "broadcast"
        is_running = name not in self.down | self.without_carrier
        running = ",running" if is_running else ""
        return Stats(is_running, flags if name in self.down else f"up,{flags}{running}")

    def _index(self, name: str) -> int:
        if name not in self.addresses:
            raise OSError("no interface with this name")
        return (self.order or list(self.addresses)).index(name) + 1


@pytest.fixture
def interfaces(monkeypatch: pytest.MonkeyPatch) -> Interfaces:
    return Interfaces(monkeypatch)


def excluding(names: str) -> dict[str, str]:
    return {EXCLUDE_INTERFACES_ANNOTATION: names}


def test_all_addresses_of_interfaces_that_are_up_in_their_order(interfaces: Interfaces) -> None:
    interfaces.addresses |= {
        "eth0": [v4("10.1.2.3"), v6("fd00::5"), v4("10.1.2.4")],
        "eth1": [v4("192.168.7.1")],
        "eth2": [v4("10.9.9.9")],
    }
    interfaces.down.add("eth2")
    assert node_addresses("", {}) == ["10.1.2.3", "fd00::5", "10.1.2.4", "192.168.7.1"]


def test_the_kernels_order_of_interfaces_counts(interfaces: Interfaces) -> None:
    """psutil lists interfaces that have an IPv4 address first."""
    interfaces.addresses |= {"eth1": [v4("10.5.5.5")], "eth0": [v6("fd00::5")]}
    interfaces.order = ["lo", "eth0", "eth1"]
    assert node_addresses("", {}) == ["fd00::5", "10.5.5.5"]


def test_an_interface_without_carrier_counts(interfaces: Interfaces) -> None:
    interfaces.addresses["docker0"] = [v4("172.17.0.1")]
    interfaces.without_carrier.add("docker0")
    assert node_addresses("", {}) == ["172.17.0.1"]


def test_addresses_of_a_loopback_interface_do_not_count(interfaces: Interfaces) -> None:
    interfaces.addresses["lo"].append(v4("10.9.9.9"))
    assert node_addresses("", {}) == ["127.0.0.1", "::1"]


def test_a_labelled_address_belongs_to_its_interface(interfaces: Interfaces) -> None:
    interfaces.addresses |= {"eth0": [v4("10.1.2.3")], "eth1": [v4("10.5.5.5")], "eth0:1": [v4("10.1.2.9")]}
    assert node_addresses("", {}) == ["10.1.2.3", "10.1.2.9", "10.5.5.5"]
    assert node_addresses("", excluding("eth0")) == ["10.5.5.5"]
    interfaces.addresses["gone:1"] = [v4("10.6.6.6")]
    assert node_addresses("", excluding("eth0")) == ["10.5.5.5"]


def test_what_is_no_address_of_the_node_is_left_out(interfaces: Interfaces) -> None:
    interfaces.addresses["eth0"] = [
        Entry(socket.AF_PACKET, "02:00:00:00:00:01"),
        v4("169.254.1.1"),
        v6("fe80::1%eth0"),
        v4("0.0.0.0"),
        v6("::"),
        v6("::ffff:127.0.0.1"),
        v6("::ffff:10.1.2.3"),
        v6("fd00::5%eth0"),
    ]
    assert node_addresses("", {}) == ["10.1.2.3", "fd00::5"]


def test_the_instance_ip_comes_first_and_once(interfaces: Interfaces) -> None:
    interfaces.addresses["eth0"] = [v4("10.1.2.3"), v6("fd00::5")]
    assert node_addresses("fd00::5", {}) == ["fd00::5", "10.1.2.3"]
    assert node_addresses("172.16.0.1", {}) == ["172.16.0.1", "10.1.2.3", "fd00::5"]
    assert node_addresses("::ffff:10.1.2.3", {}) == ["10.1.2.3", "fd00::5"]
    assert node_addresses("fd00:0::5", {}) == ["fd00::5", "10.1.2.3"]


@pytest.mark.parametrize("text", ["", "web-0", "10.1.2", "10.1.2.3:80", "[::1]", "fe80::1%eth0"])
def test_an_instance_ip_that_is_none_is_ignored(interfaces: Interfaces, text: str) -> None:
    interfaces.addresses["eth0"] = [v4("10.1.2.3")]
    assert node_addresses(text, {}) == ["10.1.2.3"]


def test_without_any_address_both_loopbacks(interfaces: Interfaces) -> None:
    assert node_addresses("", {}) == ["127.0.0.1", "::1"]


def test_excluded_interfaces(interfaces: Interfaces) -> None:
    interfaces.addresses |= {"eth0": [v4("10.1.2.3")], "net1": [v4("10.5.5.5")], "net2": [v4("10.6.6.6")]}
    assert node_addresses("", excluding("net1, net2 ,")) == ["10.1.2.3"]
    assert node_addresses("", excluding(" , ")) == ["10.1.2.3", "10.5.5.5", "10.6.6.6"]
    assert node_addresses("10.5.5.5", excluding("net1")) == ["10.5.5.5", "10.1.2.3", "10.6.6.6"]


def test_excluding_what_is_not_there_changes_nothing(interfaces: Interfaces) -> None:
    assert node_addresses("", excluding("net1")) == ["127.0.0.1", "::1"]


def test_everything_excluded_leaves_nothing(interfaces: Interfaces) -> None:
    interfaces.addresses["eth0"] = [v4("10.1.2.3")]
    assert node_addresses("", excluding("eth0")) == []


def test_an_unspecified_address_means_that_the_network_is_not_ready(interfaces: Interfaces) -> None:
    interfaces.addresses["eth0"] = [v4("10.1.2.3")]
    assert not has_unspecified_address()
    interfaces.addresses["eth1"] = [v4("0.0.0.0")]
    assert has_unspecified_address()
    interfaces.down.add("eth1")
    assert not has_unspecified_address()
    interfaces.addresses["eth0"].append(v6("::"))
    assert has_unspecified_address()


def test_the_real_network_of_this_machine_can_be_read() -> None:
    addresses = node_addresses("", {})
    assert addresses
    assert all(map(is_address, addresses))


ONLY_V4 = Family("127.0.0.1", "0.0.0.0", "V4_ONLY")
ONLY_V6 = Family("::1", "::", "V6_ONLY")


@pytest.mark.parametrize(
    ("addresses", "single", "dual"),
    [
        ([], ONLY_V4, ONLY_V4),
        (["10.1.2.3"], ONLY_V4, ONLY_V4),
        (["10.1.2.3", "10.1.2.4"], ONLY_V4, ONLY_V4),
        (["fd00::5"], ONLY_V6, ONLY_V6),
        (["fd00::5", "fd00::6"], ONLY_V6, ONLY_V6),
        (["10.1.2.3", "fd00::5"], ONLY_V4, Family("127.0.0.1", "0.0.0.0", "ALL", "::1", "::")),
        (["fd00::5", "10.1.2.3"], ONLY_V4, Family("::1", "::", "ALL", "127.0.0.1", "0.0.0.0")),
    ],
)
def test_the_family_of_the_bootstrap(addresses: list[str], single: Family, dual: Family) -> None:
    assert family_of(addresses, is_dual_stack=False) == single
    assert family_of(addresses, is_dual_stack=True) == dual


@pytest.mark.parametrize("text", ["10.1.2.3", "::", "fd00::5", "::ffff:10.1.2.3"])
def test_addresses(text: str) -> None:
    assert is_address(text)


@pytest.mark.parametrize(
    "text", ["", "a", "10.1.2", "10.1.2.3/8", "010.1.2.3", "fd00::5::1", " 10.1.2.3", "fe80::1%eth0"]
)
def test_what_is_no_address(text: str) -> None:
    assert not is_address(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("::ffff:10.1.2.3", "10.1.2.3"), ("::ffff:127.0.0.1", "127.0.0.1"), ("fd00::5", "fd00::5"), ("10.1.2.3",) * 2],
)
def test_mapped_addresses_are_unmapped(text: str, expected: str) -> None:
    assert str(unmapped(text)) == expected


def test_unmapping_what_is_no_address() -> None:
    with pytest.raises(ValueError, match="localhost"):
        unmapped("localhost")
