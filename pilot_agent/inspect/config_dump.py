"""A dump of Envoy's admin interface, of `/config_dump` or `/clusters?format=json`: read, told apart, taken apart.

Knows the sections and the states a resource can be in, not what is in a resource: that is the views'. `commands` brings
the bytes, from a file or a running Envoy.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from pilot_agent.errors import AgentError
from pilot_agent.inspect.fields import Message, field, message, messages

_ADMIN = "type.googleapis.com/envoy.admin.v3."


class DumpError(AgentError):
    """What is given as a dump is none, or lacks what a view needs."""


class MissingSection(DumpError):
    """A dump without a section that a view is of."""

    def __init__(self, where: str, names: tuple[str, ...]) -> None:
        remedy = _WHOLE if len(names) > 1 else _REMEDIES.get(names[0], _WHOLE)
        super().__init__(f"{where}: the dump has no {', '.join(names)}; {remedy}")
        self._where, self._names = where, names

    def beside(self, others: "list[MissingSection]") -> "MissingSection":
        """One error for this and `others`."""
        return MissingSection(self._where, (*self._names, *(name for each in others for name in each._names)))


_WHOLE = "give the whole answer of /config_dump"
_REMEDIES = {"EndpointsConfigDump": "give the answer of /config_dump?include_eds, or of /clusters?format=json"}


class Dump(NamedTuple):
    """`content` is the parsed document; `where` names its origin in messages: a file, or the URL asked."""

    content: Message
    where: str

    @property
    def is_config(self) -> bool:
        return isinstance(self.content.get("configs"), list)

    @property
    def is_clusters(self) -> bool:
        return isinstance(field(self.content, "cluster_statuses"), list)

    def section(self, name: str) -> Message:
        """The section of that message, `ListenersConfigDump`. Raises DumpError where there is none."""
        self.require_config()
        for each in messages(self.content, "configs"):
            if each.get("@type") == _ADMIN + name:
                return each
        raise MissingSection(self.where, (name,))

    def require_config(self) -> None:
        """Raises DumpError for what is no answer of /config_dump."""
        if self.is_config:
            return
        if self.is_clusters:
            raise DumpError(f"{self.where} is an answer of /clusters, which only endpoints shows; {_WHOLE}")
        raise DumpError(f'{self.where} is no dump of Envoy: it has no list "configs"; {_WHOLE}')


def parse(data: bytes, where: str) -> Dump:
    """Raises DumpError for what is no JSON object."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        reason = "is nested too deeply" if isinstance(error, RecursionError) else f"is no JSON ({error})"
        raise DumpError(f"{where} {reason if data.strip() else 'is empty'}; {_WHOLE}") from None
    if not isinstance(content, dict):
        raise DumpError(f"{where} is no dump of Envoy, but a JSON {_kind(content)}; {_WHOLE}")
    return Dump(content, where)


def _kind(value: Any) -> str:
    kinds = {list: "list", str: "string", bool: "boolean", type(None): "null"}
    return kinds.get(type(value), "number")


def listeners(dump: Dump) -> list[Message]:
    """Those that serve, istiod's before the bootstrap's, as istioctl takes them; no warming and no draining ones."""
    section = dump.section("ListenersConfigDump")
    active = _each(section, "dynamic_listeners", "active_state", "listener")
    return [*active, *_each(section, "static_listeners", "listener")]


def routes(dump: Dump) -> list[Message]:
    section = dump.section("RoutesConfigDump")
    dynamic = _each(section, "dynamic_route_configs", "route_config")
    return [*dynamic, *_each(section, "static_route_configs", "route_config")]


def clusters(dump: Dump) -> list[Message]:
    section = dump.section("ClustersConfigDump")
    active = _each(section, "dynamic_active_clusters", "cluster")
    return [*active, *_each(section, "static_clusters", "cluster")]


def assignments(dump: Dump) -> list[Message]:
    """A ClusterLoadAssignment per cluster."""
    section = dump.section("EndpointsConfigDump")
    dynamic = _each(section, "dynamic_endpoint_configs", "endpoint_config")
    return [*dynamic, *_each(section, "static_endpoint_configs", "endpoint_config")]


def cluster_statuses(dump: Dump) -> list[Message]:
    """Of an answer of /clusters. Raises DumpError for what is none."""
    # An Envoy without clusters answers {}.
    if dump.content and not dump.is_clusters:
        raise DumpError(
            f'{dump.where} is no dump of Envoy: it has neither "cluster_statuses" nor "configs"; '
            "give the answer of /clusters?format=json"
        )
    return messages(dump.content, "cluster_statuses")


def _each(section: Message, states: str, *path: str) -> Iterator[Message]:
    for state in messages(section, states):
        found = message(state, *path)
        if found is not None:
            yield found
