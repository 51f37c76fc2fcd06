"""The node's IP addresses and what follows from their families: loopback, wildcard, DNS look-ups.

Rules: INSTANCE_IP first, then every address of every interface that is up, without loopback, link-local and unspecified
ones; without any, both loopbacks (Istio's own order).
"""

import ipaddress
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

EXCLUDE_INTERFACES_ANNOTATION = "traffic.sidecar.istio.io/excludeInterfaces"


class Family(NamedTuple):
    """What the bootstrap needs to know of the address families. The additional pair is None outside dual stack."""

    localhost: str
    wildcard: str
    dns_lookup_family: str
    additional_localhost: str | None = None
    additional_wildcard: str | None = None


V4 = ("127.0.0.1", "0.0.0.0")  # noqa: S104 - Envoy's listeners are for the whole pod
V6 = ("::1", "::")


class _Found(NamedTuple):
    interface: str
    address: ipaddress.IPv4Address | ipaddress.IPv6Address


def node_addresses(instance_ip: str, annotations: Mapping[str, str]) -> list[str]:
    """The node's addresses, the identity first. Reads the network interfaces through psutil.

    An `instance_ip` that is no IP address is ignored. Empty where the annotation excludes every interface.
    """
    identity = [str(unmapped(instance_ip))] if is_address(instance_ip) else []
    found = [each for each in _interface_addresses() if not _is_local(each.address)]
    if not identity and not found:
        return [V4[0], V6[0]]
    excluded = {name.strip() for name in annotations.get(EXCLUDE_INTERFACES_ANNOTATION, "").split(",")}
    others = [str(each.address) for each in found if each.interface not in excluded]
    return list(dict.fromkeys([*identity, *others]))


def has_unspecified_address() -> bool:
    """Whether an interface still has 0.0.0.0 or :: for an address: the network is not ready, ask again soon.

    Istio's agent asks every 100 ms for up to 2 minutes (reference bootstrap.md, 2.5); the waiting is the caller's.
    """
    return any(each.address.is_unspecified for each in _interface_addresses())


def _is_local(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified


def _interface_addresses() -> Iterator[_Found]:
    """Every address of the interfaces that are up, but for loopback ones, in the kernel's order of interfaces."""
    import psutil

    stats, entries = psutil.net_if_stats(), psutil.net_if_addrs()
    # psutil puts interfaces with an IPv4 address before those without, and lists a labelled address (eth0:1) as an
    # interface of its own, without statistics.
    for label in sorted(entries, key=lambda label: _index(_interface_of(label))):
        interface = _interface_of(label)
        flags = stats[interface].flags.split(",") if interface in stats else []
        if "up" not in flags or "loopback" in flags:
            continue  # not psutil's isup: that is false for a network without a carrier, such as a lone bridge
        for entry in entries[label]:
            if entry.family in (socket.AF_INET, socket.AF_INET6):
                yield _Found(interface, unmapped(entry.address.partition("%")[0]))


def _interface_of(label: str) -> str:
    return label.partition(":")[0]


def _index(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return sys.maxsize  # gone since it was listed


def is_address(text: str) -> bool:
    """Whether `text` is an IP address and nothing more: a zone (fe80::1%eth0) is more, as it is in Go."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def unmapped(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address, an IPv4-mapped IPv6 one as IPv4. Raises ValueError."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def family_of(addresses: Iterable[str], *, is_dual_stack: bool) -> Family:
    """The family the bootstrap uses: IPv4 unless all addresses are IPv6, or dual stack was asked for and is there."""
    is_v6 = [":" in address for address in addresses]
    if is_v6 and all(is_v6):
        return Family(*V6, "V6_ONLY")
    if any(is_v6) and is_dual_stack:
        first, second = (V6, V4) if is_v6[0] else (V4, V6)
        return Family(*first, "ALL", second[0], second[1])
    return Family(*V4, "V4_ONLY")
