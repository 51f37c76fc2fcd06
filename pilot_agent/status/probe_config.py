"""Which probes of the application are answered for it: reads ISTIO_KUBE_APP_PROBERS, which Istio's injector writes.

Imports only json and re: it runs before Envoy is spawned, where a mistake can still end the agent. Nothing here is
probed; that is `probes`. Called by settings' caller.
"""

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

from pilot_agent.errors import SettingsError
from pilot_agent.values import parse_port

VARIABLE = "ISTIO_KUBE_APP_PROBERS"

DEFAULT_SECONDS = 1
"""Kubernetes' own default of `timeoutSeconds`."""

HOOK_SECONDS = 3600
"""For lifecycle hooks, which have no `timeoutSeconds`: kubelet ends a slow one by hanging up."""

_KEY = re.compile(r"/(?:app-health|app-lifecycle)/[^/]+/(livez|readyz|startupz|prestopz|poststartz)")
_HOOKS = frozenset({"prestopz", "poststartz"})
_KINDS = {"httpget": "httpGet", "tcpsocket": "tcpSocket", "grpc": "grpc"}
_MOST_SECONDS = 2**31 - 1


class HttpAction(NamedTuple):
    """GET `path` (with a leading slash; a query may follow), over TLS if so."""

    port: int
    path: str
    is_tls: bool


class TcpAction(NamedTuple):
    """Connect and hang up."""

    port: int


class GrpcAction(NamedTuple):
    """grpc.health.v1.Health/Check in plaintext; the empty service is the server as a whole."""

    port: int
    service: str


class Prober(NamedTuple):
    """`seconds`: the deadline of one probe, dialling included."""

    action: HttpAction | TcpAction | GrpcAction
    seconds: int


def parse_probers(text: str, status_port: int) -> tuple[Mapping[str, Prober], tuple[str, ...]]:
    """The probers by path, such as `/app-health/app/livez`, and warnings; none for an empty text, `{}` and `null`.

    Field names count in any case, unknown fields not at all. Raises SettingsError for what Istio's agent refuses, and
    for ports out of range, a probe of the agent itself and a prober that is null. No error quotes a whole prober: the
    headers in it may hold credentials (reference: status port, application probes).
    """
    probers, warnings = {}, []
    for key, entry in _decode(text).items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise SettingsError(
                f"{VARIABLE}: {key[:200]!r} is not a probe's path; write /app-health/<container>/livez, readyz or "
                "startupz, or /app-lifecycle/<container>/prestopz or poststartz"
            )
        prober = _Fields(key, entry)
        seconds = prober.seconds()
        if seconds is None and match[1] not in _HOOKS:
            warnings.append(f"{VARIABLE}: {key}: no timeoutSeconds; Kubernetes' default of {DEFAULT_SECONDS} s is used")
        default = HOOK_SECONDS if match[1] in _HOOKS else DEFAULT_SECONDS
        probers[key] = Prober(_action(prober, status_port), seconds or default)
    return probers, tuple(warnings)


def _decode(text: str) -> dict[str, object]:
    if not text.strip():
        return {}
    try:
        probers = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{VARIABLE} is not JSON: {error}; write an object of probers by path") from None
    if probers is None:
        return {}
    if not isinstance(probers, dict):
        raise SettingsError(f"{VARIABLE} is {_kind(probers)}; write an object of probers by path")
    return probers


class _Fields:
    """One object of the document; `where` is its path, for errors."""

    def __init__(self, where: str, value: object) -> None:
        if not isinstance(value, dict):
            raise SettingsError(f"{VARIABLE}: {where} is {_kind(value)}; write an object")
        self.where, self._values = where, {str(name).lower(): each for name, each in value.items()}

    def get(self, name: str) -> object:
        return self._values.get(name.lower())

    def error(self, name: str, said: str) -> SettingsError:
        return SettingsError(f"{VARIABLE}: {self.where}.{name} {said}")

    def text(self, name: str) -> str:
        value = self.get(name)
        if not isinstance(value, str | None):
            raise self.error(name, f"is {_kind(value)}; write a text in quotes")
        return value or ""

    def seconds(self) -> int | None:
        """None where it is absent or 0: that is how Kubernetes' own types leave it out."""
        value = self.get("timeoutSeconds")
        if value is None:
            return None
        if not _is_integer(value):
            raise self.error("timeoutSeconds", f"is {_quoted(value)}; write a whole number of seconds")
        assert isinstance(value, int)
        if not 0 <= value <= _MOST_SECONDS:
            raise self.error("timeoutSeconds", f"is {_quoted(value)}; write 1 or more seconds, 2147483647 at most")
        return value or None

    def port(self, status_port: int) -> int:
        value = self.get("port")
        if not _is_integer(value):
            raise self.error("port", f"is {_quoted(value)}; write a number without quotes: names are not resolved here")
        try:
            port = parse_port(value)
        except ValueError:
            raise self.error("port", f"is {_quoted(value)}; ports go from 1 to 65535") from None
        if port == status_port:
            raise self.error("port", f"is {port}, the agent's own, which would ask itself; name one of the application")
        return port


def _action(prober: _Fields, status_port: int) -> HttpAction | TcpAction | GrpcAction:
    given = [kind for kind in _KINDS if prober.get(kind) is not None]
    if len(given) != 1:
        said = " and ".join(_KINDS[kind] for kind in given) or "none of them"
        raise SettingsError(f"{VARIABLE}: {prober.where} has {said}; write exactly one of httpGet, tcpSocket and grpc")
    kind = given[0]
    fields = _Fields(f"{prober.where}.{_KINDS[kind]}", prober.get(kind))
    port = fields.port(status_port)
    if kind == "tcpsocket":
        return TcpAction(port)
    if kind == "grpc":
        return GrpcAction(port, fields.text("service"))
    path = fields.text("path")
    # Only this spelling is TLS: kubelet upper-cases nothing either.
    return HttpAction(port, path if path.startswith("/") else f"/{path}", fields.text("scheme") == "HTTPS")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list"}
    return names.get(type(value), "an object")


def _quoted(value: object) -> str:
    """A scalar as it was written; of a list or an object only what it is."""
    if isinstance(value, str | int | float):
        return json.dumps(value)[:80]
    return "missing" if value is None else _kind(value)
