"""ServiceEntries for the tests of the local mesh, as text and in a directory."""

from pathlib import Path

from pilot_agent.mesh.local import LocalMesh
from pilot_agent.mesh.model import Options
from pilot_agent.mesh.publish import Publisher
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


def publisher(directory: Path, options: Options | None = None) -> Publisher:
    from pilot_agent.bootstrap.render import Renderer

    return Publisher(directory / "xds", Renderer, options or Options())


class Mesh:
    """A local mesh on a directory of its own, with the log it wrote."""

    def __init__(self, directory: Path, options: Options | None = None) -> None:
        self.documents = directory / "documents"
        self.documents.mkdir()
        self.output = directory / "xds"
        self.log = RecordedLog()
        self.local = LocalMesh(self.documents, publisher(directory, options), self.log.scope)

    def write(self, name: str, text: str) -> None:
        (self.documents / name).write_text(text)
