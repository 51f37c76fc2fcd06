"""What `readinessProbe` of ProxyConfig says about a workload on a virtual machine: which check, how often, how long.

Only reads and refuses, with light imports: it runs before Envoy is spawned. The checking is `workload_health`.
"""

from collections.abc import Mapping
from typing import NamedTuple

from pilot_agent.errors import SettingsError
from pilot_agent.values import parse_port

_KINDS = {"httpget": "httpGet", "tcpsocket": "tcpSocket", "exec": "exec", "grpc": "grpc"}
_MOST = 2**31 - 1


class HttpCheck(NamedTuple):
    """`host` empty: the workload's own address. `headers` in their order, a name may come again."""

    host: str
    port: int
    path: str
    is_tls: bool
    headers: tuple[tuple[str, str], ...]


class TcpCheck(NamedTuple):
    host: str
    port: int


class GrpcCheck(NamedTuple):
    port: int
    service: str


class ExecCheck(NamedTuple):
    """No shell; `argv` has at least one word."""

    argv: tuple[str, ...]


class WorkloadProbe(NamedTuple):
    """Seconds, and how many results in a row make a change."""

    check: HttpCheck | TcpCheck | GrpcCheck | ExecCheck
    initial_delay: int
    timeout: int
    period: int
    successes: int
    failures: int


def parse_workload_probe(message: Mapping[str, object]) -> WorkloadProbe:
    """`message` is istio.networking.v1.ReadinessProbe as JSON, names in camelCase or snake_case.

    Raises SettingsError naming the field, for what would make Istio's agent fail later or panic: no check or two, an
    empty command, ports and numbers out of range, a scheme that is neither HTTP nor HTTPS. Nothing quotes a header.
    """
    probe = _Fields("readinessProbe", message)
    return WorkloadProbe(
        _check(probe),
        probe.number("initialDelaySeconds", 0),
        probe.number("timeoutSeconds", 1),
        probe.number("periodSeconds", 10),
        probe.number("successThreshold", 1),
        probe.number("failureThreshold", 1),
    )


class _Fields:
    """One message; `where` is its path, for errors."""

    def __init__(self, where: str, value: object) -> None:
        if not isinstance(value, Mapping):
            raise SettingsError(f"{where} is not a mapping; write its fields")
        self._where = where
        self._values = {str(name).replace("_", "").lower(): each for name, each in value.items()}

    def get(self, name: str) -> object:
        return self._values.get(name.lower())

    def message(self, name: str) -> "_Fields":
        return _Fields(f"{self._where}.{name}", self.get(name))

    def error(self, name: str, said: str) -> SettingsError:
        return SettingsError(f"{self._where}{name and '.'}{name} {said}")

    def text(self, name: str) -> str:
        value = self.get(name)
        if not isinstance(value, str | None):
            raise self.error(name, "is not a text; put it in quotes")
        return value or ""

    def number(self, name: str, default: int) -> int:
        """0 and nothing are the default, as protobuf can't tell them apart."""
        value = self.get(name)
        if value is None:
            return default
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10:
            value = int(value)  # protobuf's JSON may quote numbers
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST:
            raise self.error(name, f"is {str(value)[:80]!r}; write a whole number from 0 to {_MOST}")
        return value or default

    def port(self) -> int:
        value = self.get("port")
        try:
            return parse_port(value)
        except ValueError:
            said = "missing" if value is None else repr(str(value)[:80])
            raise self.error("port", f"is {said}; write a number from 1 to 65535") from None

    def entries(self, name: str) -> list[object]:
        value = self.get(name)
        if not isinstance(value, list | None):
            raise self.error(name, "is not a list")
        return value or []


def _check(probe: _Fields) -> HttpCheck | TcpCheck | GrpcCheck | ExecCheck:
    given = [kind for kind in _KINDS.values() if probe.get(kind) is not None]
    if len(given) != 1:
        said = " and ".join(given) or "no check"
        raise probe.error("", f"has {said}; write exactly one of {', '.join(_KINDS.values())}")
    fields = probe.message(given[0])
    if given[0] == "httpGet":
        return _http(fields)
    if given[0] == "tcpSocket":
        return TcpCheck(fields.text("host"), fields.port())
    if given[0] == "grpc":
        return GrpcCheck(fields.port(), fields.text("service"))
    argv = fields.entries("command")
    if not argv or not argv[0] or not all(isinstance(word, str) and "\0" not in word for word in argv):
        raise fields.error("command", "is not a command; write a list of words, the program first")
    return ExecCheck(tuple(map(str, argv)))


def _http(fields: _Fields) -> HttpCheck:
    scheme = fields.text("scheme").lower() or "http"
    if scheme not in ("http", "https"):
        raise fields.error("scheme", f"is {scheme[:80]!r}; write HTTP or HTTPS")
    headers = []
    for index, entry in enumerate(fields.entries("httpHeaders")):
        header = _Fields(f"readinessProbe.httpGet.httpHeaders[{index}]", entry)
        if not header.text("name"):
            raise header.error("name", "is missing; write the header's name")
        headers.append((header.text("name"), header.text("value")))
    path = fields.text("path")
    path = path if path.startswith("/") else f"/{path}"
    return HttpCheck(fields.text("host"), fields.port(), path, scheme == "https", tuple(headers))
