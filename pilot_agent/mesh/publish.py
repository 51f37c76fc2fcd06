"""The model as files Envoy reads: `lds/lds.json`, `cds/cds.json`, `rds/<port>.json`, `eds/<cluster>.json`.

It owns those four directories (a rename in one makes Envoy re-read what it watches through it, hence one per type),
their content and the order of writing; what is in them is the templates' and the view's. Called by local.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pilot_agent.files.publish import publish
from pilot_agent.mesh.model import Options
from pilot_agent.mesh.view import View

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
    """One file's content, and for each resource what it was rendered from: the same values need no second time."""

    version: str
    content: bytes
    resources: Mapping[str, tuple[Values, bytes]]


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

    @property
    def lds_path(self) -> Path:
        return self._directory / LISTENERS

    @property
    def cds_path(self) -> Path:
        return self._directory / CLUSTERS

    def publish(self, view: View) -> Published:
        """Raises TemplateError before anything is written, OSError perhaps in the middle: then publish again.

        What a listener or route points at is there first, and goes last: endpoints of new clusters, clusters (with
        those about to go), endpoints, routes, listeners, the endpoints of clusters that have none left, clusters
        without those that went, and then the files nobody reads any more. Clusters go before the endpoints they had
        already: they say which peers are let in.
        """
        endpoints = {
            f"eds/{file}": self._render("mesh/endpoints.json.j2", f"eds/{file}", {}, {file: values})
            for file, values in sorted(view.endpoints.items())
        }
        routes = {
            f"rds/{name}.json": self._render("mesh/routes.json.j2", f"rds/{name}.json", {}, {name: values})
            for name, values in view.outbound.routes.items()
        }
        listeners = self._render("mesh/listeners.json.j2", LISTENERS, *self._listeners(view))
        final = self._render("mesh/clusters.json.j2", CLUSTERS, *self._clusters(view))
        kept = self._with_leaving(final)

        self._make_directories()
        written = self._write({name: each for name, each in endpoints.items() if name not in self._on_disk})
        written += self._write({CLUSTERS: kept})
        self._settle("cds", kept.version)
        filled = {name: each for name, each in endpoints.items() if view.endpoints[Path(name).name]["localities"]}
        written += self._write(filled) + self._write(routes) + self._write({LISTENERS: listeners})
        if kept is not final:
            self._settle("lds", listeners.version)
        written += self._write(endpoints) + self._write({CLUSTERS: final})
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
        self._rendered, self._on_disk = {}, {}
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

    def _listeners(self, view: View) -> tuple[Values, dict[str, Values]]:
        options = self.options
        common: Values = {
            "rds_directory": str(self._directory / "rds"),
            "access_log": {
                "path": options.access_log,
                "format": options.access_log_format,
                "is_json": options.access_log_is_json,
            },
            "tracing": {"sampling": options.trace_sampling, "tags": dict(options.trace_tags)},
            "secrets": options.secrets,
            "trust_domain": options.trust_domain,
            "everybody_else": "PassthroughCluster" if view.policy == "ALLOW_ANY" else "BlackHoleCluster",
        }
        addresses = list(options.wildcards)
        virtual: list[Values] = [
            {"name": "virtualOutbound", "addresses": addresses, "port": options.outbound_port},
            {
                "name": "virtualInbound",
                "addresses": addresses,
                "port": options.inbound_port,
                "is_transparent": options.interception_mode == "TPROXY",
                "chains": view.inbound.chains,
                "tls_known": sorted([options.inbound_port, *view.inbound.plain_ports]),
                "http_known": sorted([options.inbound_port, *view.inbound.ports]),
            },
        ]
        groups = {"outbound": view.outbound.listeners, "ingress": view.inbound.listeners, "virtual": virtual}
        return common, _by_name(groups)

    def _clusters(self, view: View) -> tuple[Values, dict[str, Values]]:
        common: Values = {"eds_directory": str(self._directory / "eds")}
        groups = {"standing": view.inbound.standing, "inbound": view.inbound.clusters, "outbound": view.clusters}
        return common, _by_name(groups)

    def _render(self, template: str, file: str, common: Values, resources: Mapping[str, Values]) -> _Rendered:
        """One file, of which only those resources are rendered whose values differ from the last publication's.

        The values of a resource say in `group` which list of the template it belongs to; without one they are the
        template's own, and the only resource.
        """
        last = self._rendered.get(file)
        known = last.resources if last is not None else {}
        made: dict[str, tuple[Values, bytes]] = {}
        missing: dict[str, Values] = {}
        for name, values in resources.items():
            wanted = {**values, **common}
            if name in known and known[name][0] == wanted:
                made[name] = known[name]
            else:
                missing[name] = wanted
        if last is not None and not missing and made.keys() == known.keys():
            return last
        for (name, values), resource in zip(missing.items(), self._resources(template, common, missing), strict=True):
            made[name] = (values, _readable(resource))
        return _file({name: made[name] for name in resources})

    def _resources(self, template: str, common: Values, missing: Mapping[str, Values]) -> list[Any]:
        if not missing:
            return []
        if self._renderer is None:
            self._renderer = self._renderer_factory()
        first = next(iter(missing.values()))
        if "group" not in first:
            return list(self._renderer.render(template, first)["resources"])
        groups: dict[str, list[Values]] = {group: [] for group in _GROUPS[template]}
        for values in missing.values():
            groups[str(values["group"])].append(values)
        return list(self._renderer.render(template, {**common, **groups})["resources"])

    def _with_leaving(self, final: _Rendered) -> _Rendered:
        """The clusters of before that are gone stay in use until routes and listeners have changed."""
        before = self._rendered[CLUSTERS].resources if CLUSTERS in self._rendered else {}
        leaving = {name: rendered for name, rendered in before.items() if name not in final.resources}
        return _file({**final.resources, **leaving}) if leaving else final

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


_GROUPS = {
    "mesh/listeners.json.j2": ("outbound", "ingress", "virtual"),
    "mesh/clusters.json.j2": ("standing", "inbound", "outbound"),
}
"""The lists of a template, in the order in which it prints them."""


def _by_name(groups: Mapping[str, list[Values]]) -> dict[str, Values]:
    """The values of every resource by its name, with the group it is in."""
    return {str(values["name"]): {**values, "group": group} for group, found in groups.items() for values in found}


def _go_on(_kind: str, _version: str) -> None:
    """What settles a publication when nobody can ask Envoy."""


def _file(resources: Mapping[str, tuple[Values, bytes]]) -> _Rendered:
    """One resource on a line: to read and to compare, at the speed of compact JSON."""
    import hashlib  # comes with the template engine anyway

    lines = b",\n".join(line for _, line in resources.values())
    version = hashlib.sha256(lines).hexdigest()[:16]
    return _Rendered(version, b'{"version_info": "%b", "resources": [\n%b\n]}\n' % (version.encode(), lines), resources)


def _readable(resource: object) -> bytes:
    return json.dumps(resource, separators=(",", ":"), ensure_ascii=False).encode()
