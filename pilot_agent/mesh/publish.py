"""The model as files Envoy reads: `lds/lds.json`, `cds/cds.json`, `rds/<port>.json`, `eds/<cluster>.json`.

It owns those four directories (a rename in one makes Envoy re-read what it watches through it, hence one per type),
their content and the order of writing; what the documents say is the templates' and outbound's. Called by local.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pilot_agent.files.publish import publish
from pilot_agent.mesh import inbound, outbound
from pilot_agent.mesh.model import Options, ServiceEntry

if TYPE_CHECKING:
    from pilot_agent.bootstrap.render import Renderer

Values = dict[str, object]
LISTENERS, CLUSTERS = "lds/lds.json", "cds/cds.json"
_TYPES = ("lds", "cds", "rds", "eds")


class Published(NamedTuple):
    """The versions Envoy should now show: as in `cluster_manager.cds.version_text`.

    `rds` is by port, `eds` by file name. `written` and `removed` are what this publication did, relative paths.
    """

    lds: str
    cds: str
    rds: Mapping[str, str]
    eds: Mapping[str, str]
    written: tuple[str, ...]
    removed: tuple[str, ...]


class _Rendered(NamedTuple):
    """One file's content, and what it was rendered from: the same values need no second rendering."""

    values: Values
    version: str
    content: bytes


class Publisher:
    """Writes a mesh below `directory`, only what differs, in an order in which no request fails.

    `renderer_factory` is called at the first publication: it imports the template engine. `settle(type, version)` may
    wait until Envoy has that version of `cds` or `lds`, and must return in any case. Without it a service that moves
    from one cluster to another can miss its cluster for the millisecond in which Envoy reads the files.
    """

    def __init__(
        self,
        directory: Path,
        renderer_factory: Callable[[], "Renderer"],
        options: Options,
        settle: Callable[[str, str], None] | None = None,
    ) -> None:
        self._directory = directory.absolute()  # Envoy reads these paths, whatever its working directory
        self.options = options
        self._renderer_factory = renderer_factory
        self._settle = settle or _go_on
        self._renderer: Renderer | None = None
        self._rendered: dict[str, _Rendered] = {}
        self._on_disk: dict[str, bytes] = {}
        self._clusters: list[Values] = []

    @property
    def lds_path(self) -> Path:
        return self._directory / LISTENERS

    @property
    def cds_path(self) -> Path:
        return self._directory / CLUSTERS

    def publish(self, entries: Iterable[ServiceEntry]) -> Published:
        """Raises TemplateError before anything is written, OSError perhaps in the middle: then publish again.

        What a listener or route points at is there first, and goes last: endpoints and clusters (with those about
        to go), routes, listeners, clusters without them, and then the files nobody reads any more.
        """
        entries = tuple(entries)
        clusters = outbound.clusters(entries, self.options)
        endpoints = self._render_endpoints(entries)
        routes = self._render_routes(entries)
        listeners = self._render_listeners(entries)
        final = self._render_clusters(clusters)
        leaving = _leaving(clusters, self._clusters)
        kept = self._render_clusters(_by_name([*clusters, *leaving])) if leaving else final

        self._make_directories()
        written = self._write(endpoints) + self._write({CLUSTERS: kept})
        self._settle("cds", kept.version)
        written += self._write(routes) + self._write({LISTENERS: listeners})
        if leaving:
            self._settle("lds", listeners.version)
        written += self._write({CLUSTERS: final})
        self._clusters = clusters
        wanted = {**endpoints, **routes, LISTENERS: listeners, CLUSTERS: final}
        removed = self._remove_others(wanted)
        self._rendered = wanted
        return Published(
            lds=listeners.version,
            cds=final.version,
            rds={Path(name).stem: rendered.version for name, rendered in routes.items()},
            eds={Path(name).name: rendered.version for name, rendered in endpoints.items()},
            written=tuple(dict.fromkeys(written)),
            removed=removed,
        )

    def remove(self) -> None:
        """Take away every file and directory this class makes; nothing else below `directory`. Raises OSError."""
        self._rendered, self._on_disk, self._clusters = {}, {}, []
        for kind in _TYPES:
            directory = self._directory / kind
            if directory.is_dir():
                for path in directory.iterdir():
                    path.unlink()
                directory.rmdir()
        try:
            self._directory.rmdir()
        except OSError:
            pass  # never made, or not ours alone

    def _render_endpoints(self, entries: Iterable[ServiceEntry]) -> dict[str, _Rendered]:
        return {
            f"eds/{file}": self._render("mesh/endpoints.json.j2", f"eds/{file}", values)
            for file, values in sorted(outbound.endpoints(entries, self.options).items())
        }

    def _render_routes(self, entries: Iterable[ServiceEntry]) -> dict[str, _Rendered]:
        found = {}
        by_port = outbound.routes(entries, self.options)
        for port, virtual_hosts in list(by_port.items())[: self.options.route_files]:
            name = f"rds/{port}.json"
            values: Values = {"name": str(port), "virtual_hosts": virtual_hosts}
            found[name] = self._render("mesh/routes.json.j2", name, values)
        return found

    def _render_listeners(self, entries: Iterable[ServiceEntry]) -> _Rendered:
        values: Values = {
            "rds_directory": str(self._directory / "rds"),
            "access_log": self.options.access_log,
            "is_intercepting": self.options.is_intercepting,
            "outbound": {"address": self.options.wildcard, "port": self.options.outbound_port},
            "inbound": inbound.listener(self.options),
            "services": outbound.listeners(entries, self.options),
        }
        return self._render("mesh/listeners.json.j2", LISTENERS, values)

    def _render_clusters(self, clusters: list[Values]) -> _Rendered:
        values: Values = {
            "eds_directory": str(self._directory / "eds"),
            "inbound": inbound.cluster(self.options),
            "services": clusters,
        }
        return self._render("mesh/clusters.json.j2", CLUSTERS, values)

    def _render(self, template: str, name: str, values: Values) -> _Rendered:
        """Render `template`, unless the last publication did so from the same values."""
        last = self._rendered.get(name)
        if last is not None and last.values == values:
            return last
        if self._renderer is None:
            self._renderer = self._renderer_factory()
        version = _version(values)
        document = self._renderer.render(template, {**values, "version": version})
        return _Rendered(values, version, _readable(document))

    def _make_directories(self) -> None:
        for kind in _TYPES:
            (self._directory / kind).mkdir(parents=True, exist_ok=True)

    def _write(self, documents: Mapping[str, _Rendered]) -> list[str]:
        """Publish what differs from what is there; the names written."""
        written = []
        for name, rendered in documents.items():
            if self._on_disk.get(name) != rendered.content:
                publish(self._directory / name, rendered.content)
                self._on_disk[name] = rendered.content
                written.append(name)
        return written

    def _remove_others(self, wanted: Mapping[str, _Rendered]) -> tuple[str, ...]:
        """Delete what this publication does not have, leftovers of an earlier agent included."""
        removed = []
        for kind in _TYPES:
            for path in (self._directory / kind).iterdir():
                name = f"{kind}/{path.name}"
                if name not in wanted:
                    path.unlink()
                    self._on_disk.pop(name, None)
                    removed.append(name)
        return tuple(sorted(removed))


def _go_on(_kind: str, _version: str) -> None:
    """What settles a publication when nobody can ask Envoy."""


def _leaving(clusters: list[Values], before: list[Values]) -> list[Values]:
    """The clusters of `before` that are gone: they stay in use until routes and listeners have changed."""
    names = {cluster["name"] for cluster in clusters}
    return [cluster for cluster in before if cluster["name"] not in names]


def _by_name(clusters: list[Values]) -> list[Values]:
    return sorted(clusters, key=lambda cluster: str(cluster["name"]))


def _readable(document: Mapping[str, Any]) -> bytes:
    """One resource on a line: to read and to compare, at the speed of compact JSON."""
    resources = ",\n".join(
        json.dumps(item, separators=(",", ":"), ensure_ascii=False) for item in document["resources"]
    )
    version = json.dumps(document["version_info"])
    return f'{{"version_info": {version}, "resources": [\n{resources}\n]}}\n'.encode()


def _version(values: Values) -> str:
    import hashlib  # comes with the template engine anyway

    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
