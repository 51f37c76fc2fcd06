"""Judging a resolved ProxyConfig: all that is wrong with it, in one error (reference: validation of the bootstrap).

Each fault is told with the field's whole path, the value, where it came from, and what to do.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pilot_agent.errors import SettingsError
from pilot_agent.settings.model import ProxyConfig
from pilot_agent.settings.reading import shown
from pilot_agent.values import Duration, HostPort, parse_port

HOST_IP = "$(HOST_IP)"
LEAST_WINDOW = 65535
"""HTTP/2's own default, below which Envoy does not go."""

Faults = Iterator[tuple[str, str]]
"""Pairs of a field's path and what is wrong with it."""

_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_LONGEST_NAME = 253


def check(config: ProxyConfig) -> None:
    """Raises SettingsError listing every fault: field, value, source, what to do."""
    faults = [_told(config, path, text) for judge in JUDGES for path, text in judge(config.values)]
    if faults:
        raise SettingsError("failed to get proxy config: " + "; ".join(faults))


def _told(config: ProxyConfig, path: str, text: str) -> str:
    """The source of the field itself where layers were merged deeply, else of the top-level field it is in."""
    parts = path.split(".")
    above = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    source = next((config.sources[name] for name in above if name in config.sources), "default")
    return f"{path} (from {source}){'' if text.startswith(' ') else ': '}{text}"


def _texts(values: Mapping[str, Any]) -> Faults:
    for name, what in (("configPath", "a directory"), ("binaryPath", "Envoy's binary")):
        if not values.get(name):
            yield name, f" is empty: give {what}, or leave it out"
    if not values.get("serviceCluster") and values.get("tracingServiceName") is None:
        yield "serviceCluster", " is empty: give a name, or set tracingServiceName"


def _ports(values: Mapping[str, Any]) -> Faults:
    for name in ("proxyAdminPort", "statusPort"):
        try:
            parse_port(values.get(name))
        except ValueError as error:
            yield name, str(error)


def _durations(values: Mapping[str, Any]) -> Faults:
    drain = Duration(*values["drainDuration"])
    if drain.milliseconds < 1 or not drain.is_whole_seconds:
        yield "drainDuration", f"{drain} must be at least 1s and whole seconds"
    flush = Duration(*(values.get("fileFlushInterval") or (0,)))
    if flush.nanoseconds < 0:
        yield "fileFlushInterval", f"{flush} is negative: give 1s, say"


def _addresses(values: Mapping[str, Any]) -> Faults:
    if not values.get("discoveryAddress"):
        yield "discoveryAddress", " is empty: give istiod's host:port, or leave it out"
    for each in (values.get("discoveryAddress") or "").split(","):
        yield from _address("discoveryAddress", each.strip())
    for name in ("statsdUdpAddress", "zipkinAddress"):
        yield from _address(name, values.get(name), is_host_ip_known=name == "zipkinAddress")
    for name in ("envoyMetricsService", "envoyAccessLogService"):
        yield from _address(f"{name}.address", (values.get(name) or {}).get("address"))
    tracing = values.get("tracing") or {}
    for name in ("zipkin", "lightstep", "datadog"):
        if name in tracing:
            address = tracing[name].get("address")
            if not address:
                yield f"tracing.{name}.address", " is empty: give the collector's host:port"
            yield from _address(f"tracing.{name}.address", address, is_host_ip_known=name != "lightstep")


def _address(path: str, text: str | None, *, is_host_ip_known: bool = False) -> Faults:
    if not text:
        return
    if "@" in text:
        yield path, f"{shown(path, text)} has a user in it: write host:port"
        return
    try:
        host = HostPort.parse(text).host
    except ValueError as error:
        yield path, str(error)
        return
    if not (is_host_ip_known and host == HOST_IP) and not _is_host(host):
        yield path, f"{text!r}: {host!r} is neither an IP address nor a DNS name"


def _is_host(host: str) -> bool:
    if ":" in host:
        import ipaddress

        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            return False
        return True
    name = host.removesuffix(".")
    return len(name) <= _LONGEST_NAME and all(_LABEL.fullmatch(label) for label in name.split("."))


def _tracing(values: Mapping[str, Any]) -> Faults:
    lightstep = (values.get("tracing") or {}).get("lightstep")
    if lightstep is not None and not lightstep.get("accessToken"):
        yield "tracing.lightstep.accessToken", " is empty: Lightstep takes no spans without one"


def _tls(values: Mapping[str, Any]) -> Faults:
    for name in ("tracing", "envoyMetricsService", "envoyAccessLogService"):
        tls = (values.get(name) or {}).get("tlsSettings") or {}
        path = f"{name}.tlsSettings"
        if tls.get("mode") == "MUTUAL":
            for field in ("clientCertificate", "privateKey"):
                if not tls.get(field):
                    yield f"{path}.{field}", " is empty: mode MUTUAL shows a certificate, give its file"
        if tls.get("insecureSkipVerify"):
            for field in ("caCertificates", "subjectAltNames"):
                if tls.get(field):
                    yield f"{path}.{field}", f"{tls[field]!r} contradicts insecureSkipVerify: leave one of them out"


def _private_keys(values: Mapping[str, Any]) -> Faults:
    provider = values.get("privateKeyProvider") or {}
    for name in ("cryptomb", "qat"):
        if name in provider and (provider[name].get("pollDelay") or Duration(0)).nanoseconds <= 0:
            yield f"privateKeyProvider.{name}.pollDelay", " is empty or not above 0: give a delay such as 10ms"


def _connections(values: Mapping[str, Any]) -> Faults:
    settings = values.get("connectionSettings") or {}
    for name, value in settings.items():
        path = f"connectionSettings.{name}"
        if isinstance(value, Duration):
            if value.nanoseconds < 0:
                yield path, f"{value} is negative: give 0s or more"
        elif isinstance(value, int) and not isinstance(value, bool):
            least = LEAST_WINDOW if name.startswith("http2Initial") else 1
            if value < least:
                yield path, f"{value} is too small: the least is {least}"


JUDGES: tuple[Callable[[Mapping[str, Any]], Faults], ...] = (
    _texts,
    _ports,
    _durations,
    _addresses,
    _tracing,
    _tls,
    _private_keys,
    _connections,
)
