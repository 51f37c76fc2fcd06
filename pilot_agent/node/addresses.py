"""The node's IP addresses and what follows from their families: loopback, wildcard, DNS look-ups.

Rules: INSTANCE_IP first, then every address of every interface that is up, without loopback, link-local and unspecified
ones; without any, both loopbacks (Istio's own order).
"""

import ipaddress
import socket
from collections.abc import Iterable, Mapping
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


def node_addresses(instance_ip: str, annotations: Mapping[str, str]) -> list[str]:
    """The node's addresses, the identity first. Reads the network interfaces through psutil."""
    excluded = {name.strip() for name in annotations.get(EXCLUDE_INTERFACES_ANNOTATION, "").split(",") if name.strip()}
    addresses = [instance_ip] if is_address(instance_ip) else []
    found = list(_interface_addresses(excluded))
    addresses += [address for address in found if address not in addresses]
    if not addresses and not excluded:
        return [V4[0], V6[0]]
    return addresses


def _interface_addresses(excluded: Iterable[str]) -> Iterable[str]:
    import psutil

    up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
    for name, entries in psutil.net_if_addrs().items():
        if name in excluded or name not in up:
            continue
        for entry in entries:
            if entry.family in (socket.AF_INET, socket.AF_INET6):
                address = unmapped(entry.address.split("%")[0])
                if not (address.is_loopback or address.is_link_local or address.is_unspecified):
                    yield str(address)


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


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
