"""The last name table of istiod, whole: what a DNS proxy answers from. Nothing in this version answers queries.

A table replaces the one before it; one that can't be read is refused before it gets here.
"""

from collections.abc import Mapping
from typing import Any

_SHOWN = ("ips", "registry", "shortname", "namespace")


class NameTable:
    """`names` by host: `ips`, `registry`, `shortname`, `namespace`, `alt_hosts`; None before the first table."""

    def __init__(self) -> None:
        self.names: Mapping[str, Mapping[str, Any]] | None = None

    def take(self, names: Mapping[str, Mapping[str, Any]]) -> None:
        self.names = names

    def reason(self) -> str | None:
        """Why names can't be answered yet."""
        return "istiod has sent no name table yet" if self.names is None else None

    def described(self) -> dict[str, Any] | None:
        """The table as protobuf's JSON, which leaves out what is empty; None before there is one."""
        if self.names is None:
            return None
        return {
            "table": {
                host: {field: info[field] for field in _SHOWN if info.get(field)} for host, info in self.names.items()
            }
        }
