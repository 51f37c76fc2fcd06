"""Host names, IP addresses and ranges, as documents write them, in one canonical form.

Used by the readers of all kinds; nothing here resolves a name.
"""

import ipaddress
import re
import socket
from typing import Literal

from pilot_agent.mesh.reading.fields import Field, shown
from pilot_agent.mesh.reading.metadata import LABEL

_HOST = re.compile(rf"(\*\.)?{LABEL}(\.{LABEL})*\.?")


def host(field: Field) -> str:
    """A name, short or full, or a wildcard such as *.example.com; without the dot of the root."""
    name = field.text()
    if len(name) > 253 or not _HOST.fullmatch(name):
        field.refuse(f"{shown(name)} is not a host name: write a name such as api.example.com or *.example.com")
    return name.removesuffix(".")


def hosts(field: Field, most: int) -> tuple[str, ...]:
    """Host names, none of them twice whatever its case."""
    names: dict[str, str] = {}
    for item in field.items(most):
        name = host(item)
        if name.lower() in names:
            item.refuse(f"{shown(name)} is there twice: remove one of them")
        names[name.lower()] = name
    return tuple(names.values())


def covers(pattern: str, name: str) -> bool:
    """True where `pattern`, a host that may be a wildcard, means `name`, which may be one too."""
    pattern, name = pattern.lower(), name.lower()
    return name == pattern or (pattern.startswith("*") and name.endswith(pattern[1:]))


def canonical(text: str) -> str | None:
    """An IP address in canonical form, None for anything else."""
    try:  # IPv4 in the common form is canonical already: ipaddress takes ten times as long for it
        if socket.inet_ntoa(socket.inet_aton(text)) == text:
            return text
    except (OSError, ValueError):
        pass
    try:
        return None if "%" in text else str(ipaddress.ip_address(text))
    except ValueError:
        return None


def address(field: Field) -> str:
    """An IP address."""
    found = canonical(field.text())
    if found is None:
        field.refuse(f"{shown(field.value)} is not an IP address: give one such as 10.0.0.1")
    return found


def network(field: Field) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """A range, or an address as the range of one."""
    text = field.text()
    try:
        if "%" in text:
            raise ValueError
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        field.refuse(f"{shown(text)} is not an address: give an IP address or a range such as 10.0.0.0/24")


def endpoint_address(field: Field, kind: Literal["IP", "host"]) -> str:
    """Where an endpoint is: an IP address, or with "host" also a name to resolve."""
    if not field.is_set:
        field.refuse("is missing: give the endpoint's address")
    text = field.text()
    if text.startswith("unix:"):
        field.refuse(f"{shown(text)}: Unix sockets are not supported here; give an IP address")
    found = canonical(text)
    if found is not None:
        return found
    if kind == "IP":
        field.refuse(f"{shown(text)} is not an IP address: give one, or use resolution DNS for a host name")
    if text.startswith("*"):
        field.refuse(f"{shown(text)} can't be resolved: give a name without a wildcard")
    return host(field)
