"""Lines of Envoy's access log in Istio's text format, by the names that Istio's documentation has for their fields."""

import re
from pathlib import Path
from typing import NamedTuple

_WORD = re.compile(r'"[^"]*"|\S+')


_FIELDS = {
    "response_code": 2,
    "response_flags": 3,
    "upstream_transport_failure_reason": 6,
    "request_id": 13,
    "authority": 14,
    "upstream_host": 15,
    "upstream_cluster": 16,
    "upstream_local_address": 17,
    "downstream_local_address": 18,
    "downstream_remote_address": 19,
    "requested_server_name": 20,
    "route_name": 21,
}
"""Places of words; in front of them the time, "METHOD path protocol", ..."""


class AccessLogLine(NamedTuple):
    """`text` is the whole line. An absent value is "-"."""

    text: str
    method: str
    path: str
    response_code: str
    response_flags: str
    upstream_transport_failure_reason: str
    request_id: str
    authority: str
    upstream_host: str
    upstream_cluster: str
    upstream_local_address: str
    downstream_local_address: str
    downstream_remote_address: str
    requested_server_name: str
    route_name: str


def read(path: Path) -> list[AccessLogLine]:
    """The lines so far; one that is half written, or of another format, is left out."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    lines = text.split("\n")[:-1]
    return [line for line in map(parse, lines) if line is not None]


def parse(line: str) -> AccessLogLine | None:
    words = [word.strip('"') for word in _WORD.findall(line)]
    if len(words) <= max(_FIELDS.values()) or len(request := words[1].split()) != 3:
        return None
    method, path, _ = request
    return AccessLogLine(line, method, path, **{name: words[place] for name, place in _FIELDS.items()})
