"""What gRPC's own xDS client is given: the golden document, and what it depends on."""

import json
from pathlib import Path
from typing import Any

from pilot_agent.bootstrap.grpc import GrpcBootstrap, grpc_bootstrap
from tests.unit.bootstrap.documents import node_of
from tests.unit.bootstrap.test_golden import UPDATE
from tests.unit.settings.told import told

GOLDEN = Path(__file__).parent.parent.parent / "golden" / "grpc-bootstrap.json"
SOCKET = Path("/etc/istio/proxy/XDS")
POD = {
    "POD_NAME": "client-1",
    "POD_NAMESPACE": "foo",
    "SERVICE_ACCOUNT": "bar",
    "ISTIO_META_CLUSTER_ID": "Kubernetes",
    "ISTIO_META_MESH_ID": "mesh",
    "ISTIO_META_MY_OWN": "told beside",
}


def made(output: Path | None = None, **variables: str) -> GrpcBootstrap:
    settings = told({}, env={**POD, **variables})
    return grpc_bootstrap(Path("/etc/istio/proxy/grpc-bootstrap.json"), node_of(settings), SOCKET, output)


def document(bootstrap: GrpcBootstrap) -> Any:
    return json.loads(bootstrap.document)


def test_the_document_is_the_golden_one() -> None:
    text = made(Path("/var/lib/istio/data")).document.decode()
    if UPDATE:
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def test_without_output_certs_there_is_no_certificate_provider() -> None:
    bootstrap = made()
    assert "certificate_providers" not in document(bootstrap)
    assert bootstrap.certificates == ()


def test_the_files_it_names_are_those_that_must_be_there() -> None:
    bootstrap = made(Path("/certs"))
    config = document(bootstrap)["certificate_providers"]["default"]["config"]
    named = {str(path) for path in bootstrap.certificates}
    assert named == {value for key, value in config.items() if key.endswith("_file")}
    assert len(named) == 3


def test_the_metadata_is_istios_record_without_what_was_told_beside() -> None:
    metadata = document(made())["node"]["metadata"]
    assert metadata["GENERATOR"] == "grpc"
    assert (metadata["CLUSTER_ID"], metadata["MESH_ID"]) == ("Kubernetes", "mesh")
    assert "MY_OWN" not in metadata
