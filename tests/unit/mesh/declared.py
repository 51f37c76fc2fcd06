"""Documents for the tests of the local mesh, as text and in a directory, and what a proxy makes of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pilot_agent.mesh.local import LocalMesh
from pilot_agent.mesh.model import Options
from pilot_agent.mesh.publish import Publisher
from pilot_agent.mesh.reading.fields import dotted
from pilot_agent.mesh.reading.kinds import read
from pilot_agent.mesh.view import View, see
from tests.support.recorded_log import RecordedLog


def service_entry(
    name: str,
    *,
    host: str = "",
    port: int = 8000,
    protocol: str = "HTTP",
    endpoint: str = "127.0.0.1",
    target: int = 0,
    resolution: str = "STATIC",
    addresses: tuple[str, ...] = (),
) -> str:
    lines = [
        "apiVersion: networking.istio.io/v1",
        "kind: ServiceEntry",
        f"metadata: {{name: {name}}}",
        "spec:",
        f"  hosts: [{host or name + '.example.com'}]",
        f"  addresses: [{', '.join(addresses)}]",
        "  ports:",
        f"  - number: {port}",
        "    name: main",
        f"    protocol: {protocol}",
        f"    targetPort: {target or port}",
        f"  resolution: {resolution}",
    ]
    if endpoint:
        lines += ["  endpoints:", f"  - address: {endpoint}"]
    return "\n".join(lines) + "\n"


def document(kind: str, spec: str, name: str = "it", namespace: str = "default") -> str:
    """One of Istio's kinds; `spec` is YAML of one line."""
    group = "security" if kind == "PeerAuthentication" else "networking"
    metadata = f"{{name: {name}, namespace: {namespace}}}"
    return f"apiVersion: {group}.istio.io/v1\nkind: {kind}\nmetadata: {metadata}\nspec: {spec}\n"


def changing_application(round_: int, port: int, targets: list[int]) -> str:
    """app.example.com as it is in this round: its endpoints, how they are found, its subsets and their weights."""
    resolution = "DNS" if round_ % 5 == 4 else "STATIC"
    address = "localhost" if resolution == "DNS" else "127.0.0.1"
    endpoints = [
        f"{{address: {address}, ports: {{http: {target}}}, labels: {{version: v{number}}}}}"
        for number, target in enumerate((targets, targets[::-1], targets[:1])[round_ % 3])
    ]
    ports = f"[{{number: {port}, name: http, protocol: HTTP}}]"
    spec = (
        f"{{hosts: [app.example.com], ports: {ports}, resolution: {resolution}, endpoints: [{', '.join(endpoints)}]}}"
    )
    texts = [document("ServiceEntry", spec)]
    if round_ % 4:
        names = [f"v{number}" for number in range(len(endpoints))]
        subsets = [f"{{name: {name}-{round_ % 2}, labels: {{version: {name}}}}}" for name in names]
        routes = [
            f"{{destination: {{host: app.example.com, subset: {name}-{round_ % 2}}}, weight: {20 + round_}}}"
            for name in names
        ]
        texts += [
            document("DestinationRule", f"{{host: app.example.com, subsets: [{', '.join(subsets)}]}}"),
            document("VirtualService", f"{{hosts: [app.example.com], http: [{{route: [{', '.join(routes)}]}}]}}"),
        ]
    return "---\n".join(texts)


def kubernetes_service(
    name: str, ports: str = "[{name: http, port: 80}]", more: str = "clusterIP: 10.96.0.1", namespace: str = "default"
) -> str:
    metadata = f"{{name: {name}, namespace: {namespace}}}"
    return f"apiVersion: v1\nkind: Service\nmetadata: {metadata}\nspec: {{ports: {ports}, {more}}}\n"


def endpoint_slice(service: str, *addresses: str, ports: str = "[{name: http, port: 80}]", more: str = "") -> str:
    """In the namespace `default`; `more` goes to each endpoint."""
    family = "IPv6" if ":" in "".join(addresses) else "IPv4"
    metadata = f"{{name: {service}-{addresses[0].strip('[]')}, labels: {{kubernetes.io/service-name: {service}}}}}"
    endpoints = ", ".join(f"{{addresses: ['{address}']{more and ', '}{more}}}" for address in addresses)
    return (
        f"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {metadata.replace('::', '-')}\n"
        f"addressType: {family}\nports: {ports}\nendpoints: [{endpoints}]\n"
    )


class Seen:
    """What a proxy with these options makes of the documents."""

    def __init__(self, *texts: str, **options: Any) -> None:
        self.view: View = see(read("mesh.yaml", "---\n".join(texts).encode()).resources, Options(**options))
        self.clusters: dict[str, Any] = {str(cluster["name"]): cluster for cluster in self.view.clusters}
        self.inbound_clusters: dict[str, Any] = {str(each["name"]): each for each in self.view.inbound.clusters}
        self.listeners: dict[str, Any] = {str(each["name"]): each for each in self.view.outbound.listeners}

    @property
    def problems(self) -> dict[str, str]:
        """Reasons by field."""
        return {dotted(problem.path): problem.reason for problem in self.view.problems}

    def hosts(self, route: str) -> dict[str, Any]:
        """The virtual hosts of a route configuration, by name."""
        values: Any = self.view.outbound.routes[route]
        return {host["name"]: host for host in values["virtual_hosts"]}

    def routes(self, host: str, port: int = 80) -> list[Any]:
        found: list[Any] = self.hosts(str(port))[f"{host}:{port}"]["routes"]
        return found

    def endpoints(self, cluster: str) -> list[Any]:
        """Of a cluster, whether they have a file or not."""
        values = self.clusters[cluster]
        localities: Any = values["localities"]
        if values["endpoints_file"]:
            localities = self.view.endpoints[values["endpoints_file"]]["localities"]
        return [endpoint for locality in localities for endpoint in locality["endpoints"]]

    def addresses(self, cluster: str) -> list[str]:
        return [f"{endpoint['address']}:{endpoint['port']}" for endpoint in self.endpoints(cluster)]


def publisher(
    directory: Path, options: Options | None = None, settle: Callable[[str, str], None] | None = None
) -> Publisher:
    from pilot_agent.bootstrap.render import Renderer

    return Publisher(directory / "xds", Renderer, options or Options(), settle)


class Mesh:
    """A local mesh on a directory of its own, with the log it wrote."""

    def __init__(
        self, directory: Path, options: Options | None = None, settle: Callable[[str, str], None] | None = None
    ) -> None:
        self.documents = directory / "documents"
        self.documents.mkdir()
        self.output = directory / "xds"
        self.log = RecordedLog()
        self.local = LocalMesh(self.documents, publisher(directory, options, settle), self.log.scope)

    def write(self, name: str, text: str) -> None:
        (self.documents / name).write_text(text)
