"""The few value types every layer shares: durations, ports, host:port pairs, booleans.

They parse what people write in flags, variables and YAML, and say what is wrong with it. No I/O.
"""

import re
from typing import NamedTuple

_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_DURATION_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_LONGEST_NS = 2**63 - 1
"""As Go keeps durations: about 292 years."""

TRUE_WORDS = frozenset({"1", "t", "T", "TRUE", "true", "True"})
FALSE_WORDS = frozenset({"0", "f", "F", "FALSE", "false", "False"})


class Duration(NamedTuple):
    """A length of time in whole nanoseconds, as Go and protobuf keep it."""

    nanoseconds: int

    @classmethod
    def parse(cls, text: str) -> "Duration":
        """Read `1m30s`, `250ms`, `90s` or `0` (Go syntax, of which protobuf's JSON form is a part).

        Raises ValueError for anything else, a bare number such as `5` included.
        """
        body = text[1:] if text[:1] in ("-", "+") else text
        if body == "0":
            return cls(0)
        total, position = 0.0, 0
        for part in _DURATION_PART.finditer(body):
            if part.start() != position:
                break
            total += float(part[1]) * _NANOSECONDS[part[2]]
            position = part.end()
        if position == 0 or position != len(body):
            raise ValueError(f"{text!r} is not a duration: write a number with a unit, such as 5s, 250ms or 1m30s")
        if total > _LONGEST_NS:
            raise ValueError(f"{text!r} is too long for a duration: at most 292 years")
        return cls(round(total) * (-1 if text.startswith("-") else 1))

    @classmethod
    def of(cls, seconds: float) -> "Duration":
        return cls(round(seconds * 10**9))

    @property
    def seconds(self) -> float:
        return self.nanoseconds / 10**9

    @property
    def milliseconds(self) -> int:
        return self.nanoseconds // 10**6

    @property
    def is_whole_seconds(self) -> bool:
        return self.nanoseconds % 10**9 == 0

    def __str__(self) -> str:
        """Protobuf's JSON form, which Envoy reads: `90s`, `0.5s`."""
        whole, rest = divmod(abs(self.nanoseconds), 10**9)
        fraction = f".{rest:09d}".rstrip("0") if rest else ""
        return f"{'-' if self.nanoseconds < 0 else ''}{whole}{fraction}s"


class HostPort(NamedTuple):
    """A `host:port` address; the host of an IPv6 address is kept without its brackets."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "HostPort":
        """Raises ValueError unless `text` is `host:port` or `[v6]:port` with a port from 1 to 65535."""
        host, separator, port = text.rpartition(":")
        if not separator or not host:
            raise ValueError(f"{text!r} is not an address: write host:port")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError(f"{text!r} is ambiguous: put an IPv6 address in brackets, as in [::1]:15012")
        return cls(host, parse_port(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def camel_case(name: str) -> str:
    """`filter_chains` as protobuf's JSON spells it, `filterChains`."""
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def parse_port(value: object) -> int:
    """An integer from 1 to 65535, given as a number or its decimal text; raises ValueError."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if not is_number and not (isinstance(value, str) and value.isascii() and value.isdigit()):
        raise ValueError(f"{value!r} is not a port number")
    port = int(value)  # type: ignore[call-overload]
    if not 1 <= port <= 65535:
        raise ValueError(f"{port} is not a port: ports go from 1 to 65535")
    return int(port)


def parse_bool(text: str) -> bool:
    """Go's spelling of booleans, which Istio's variables use: 1 t T true TRUE True and the same of false."""
    if text in TRUE_WORDS:
        return True
    if text in FALSE_WORDS:
        return False
    raise ValueError(f"{text!r} is not a boolean: write true or false")
