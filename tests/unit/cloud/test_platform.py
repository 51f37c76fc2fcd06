"""Which cloud is asked, and what comes of its answers, of missing ones and of broken ones."""

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from pilot_agent.clock import Deadline
from pilot_agent.cloud.platform import CLOUDS, CloudVariables, Found, Places, find_platform
from pilot_agent.node.surroundings import Platform
from pilot_agent.settings.environment import Environment
from tests.support.clocks import ManualClock
from tests.unit.cloud.conftest import Machine
from tests.unit.cloud.metadata_server import FakeMetadataServer, Fault, soon

AWS = {
    "/latest/meta-data/placement/region": "us-east-1",
    "/latest/meta-data/placement/availability-zone": "us-east-1a\n",
    "/latest/meta-data/instance-id": "i-0abc",
}
AWS_FOUND = Platform(
    "aws",
    {"region": "us-east-1", "zone": "us-east-1a"},
    {"aws_region": "us-east-1", "aws_availability_zone": "us-east-1a", "aws_instance_id": "i-0abc"},
)
AZURE_PATH = "/metadata/instance/compute?api-version=2019-08-15&format=json"
GOOGLE = {
    f"/computeMetadata/v1/{path}": text
    for path, text in {
        "project/project-id": "shop",
        "project/numeric-project-id": "123",
        "instance/attributes/cluster-name": "main",
        "instance/attributes/cluster-location": "europe-west1",
        "instance/name": "node-1",
        "instance/id": "456",
        "instance/attributes/instance-template": "projects/123/global/instanceTemplates/t",
        "instance/attributes/created-by": "projects/123/zones/europe-west1-b/instanceGroupManagers/m",
        "instance/zone": "projects/123/zones/europe-west1-b",
    }.items()
}
GOOGLE_METADATA = {
    "gcp_project": "shop",
    "gcp_project_number": "123",
    "gcp_gke_cluster_name": "main",
    "gcp_location": "europe-west1",
    "gcp_gke_cluster_url": "https://container.googleapis.com/v1/projects/shop/locations/europe-west1/clusters/main",
    "gcp_gce_instance": "node-1",
    "gcp_gce_instance_id": "456",
    "gcp_gce_instance_template": "projects/123/global/instanceTemplates/t",
    "gcp_gce_instance_created_by": "projects/123/zones/europe-west1-b/instanceGroupManagers/m",
}


def find(places: Places, deadline: Deadline | None = None, **variables: str) -> Found:
    return find_platform(CloudVariables(**variables), deadline or soon(), places)


def only_warning(found: Found) -> str:
    (warning,) = found.warnings
    return warning


# Which cloud


def test_on_an_ordinary_machine_nobody_is_asked(places: Places, machine: Machine, server: FakeMetadataServer) -> None:
    machine(sys_vendor="LENOVO", product_name="21CB")
    assert find(places) == Found()
    assert find(places, kubernetes_service_host="10.96.0.1", gcp_zone="a-b1-c", gcp_quota_project="q") == Found()
    assert server.asked == []


def test_a_recognised_cloud_is_asked(places: Places, machine: Machine, server: FakeMetadataServer) -> None:
    machine(sys_vendor="Amazon EC2")
    server.facts = AWS
    assert find(places) == Found(AWS_FOUND)


def test_none_asks_nobody_even_in_a_cloud(places: Places, machine: Machine, server: FakeMetadataServer) -> None:
    machine(sys_vendor="Amazon EC2")
    assert find(places, cloud_platform="none", gcp_metadata="a|1|b|c") == Found()
    assert server.asked == []


def test_the_variable_comes_over_the_firmware(places: Places, machine: Machine, server: FakeMetadataServer) -> None:
    machine(sys_vendor="LENOVO")
    server.facts = AWS
    assert find(places, cloud_platform="aws") == Found(AWS_FOUND)


def test_another_word_is_a_warning_and_the_firmware_counts(places: Places, server: FakeMetadataServer) -> None:
    found = find(places, cloud_platform="ibm")
    assert found.platform == Platform()
    assert only_warning(found) == (
        "CLOUD_PLATFORM='ibm' is unknown: use aws, azure, gcp or none; finding it out instead"
    )


@pytest.mark.parametrize("name", CLOUDS)
def test_a_cloud_that_knows_nothing_is_none(places: Places, name: str) -> None:
    found = find(places, cloud_platform=name)
    assert found.platform == Platform()
    assert only_warning(found) == (
        f"the metadata server of {name} knows nothing: set CLOUD_PLATFORM=none if this is not {name}"
    )


def test_the_variables_by_their_names() -> None:
    names = [field.upper() for field in CloudVariables._fields]
    assert CloudVariables.of(Environment({name: name.lower() for name in names})) == CloudVariables(
        *CloudVariables._fields
    )
    assert CloudVariables.of(Environment({})) == CloudVariables()


# AWS


def test_aws_is_asked_with_a_token_where_it_gives_one(places: Places, server: FakeMetadataServer) -> None:
    server.facts, server.token = AWS, "secret-token"
    assert find(places, cloud_platform="aws") == Found(AWS_FOUND)
    assert server.asked[0] == "PUT /latest/api/token"


def test_aws_is_asked_without_a_token_where_the_request_for_one_hangs(
    places: Places, server: FakeMetadataServer
) -> None:
    """A pod is one hop too far away for the answer."""
    server.facts, server.faults = AWS, {"/latest/api/token": "hang"}
    assert find(places, cloud_platform="aws") == Found(AWS_FOUND)


def test_what_aws_does_not_know_is_left_out(places: Places, server: FakeMetadataServer) -> None:
    server.facts = {"/latest/meta-data/instance-id": "i-0abc"}
    assert find(places, cloud_platform="aws") == Found(Platform("aws", {}, {"aws_instance_id": "i-0abc"}))


def test_a_token_that_is_none_is_not_sent(places: Places, server: FakeMetadataServer) -> None:
    server.facts, server.token = AWS, "two\r\nlines"
    found = find(places, cloud_platform="aws")
    assert found.platform == Platform()
    assert "two" not in only_warning(found)


# Azure


def azure(places: Places, server: FakeMetadataServer, document: Any) -> Found:
    server.facts = {AZURE_PATH: document if isinstance(document, str) else json.dumps(document)}
    server.required_headers = {"Metadata": "true"}
    return find(places, cloud_platform="azure")


def test_azure(places: Places, server: FakeMetadataServer) -> None:
    tags = [{"name": "team", "value": "shop"}, {"name": "a:b", "value": "c;d"}, {"value": "nameless"}, "x"]
    document = {"name": "vm", "location": "westeurope", "zone": "1", "vmId": "id", "tagsList": tags, "tags": "old:1"}
    assert azure(places, server, document) == Found(
        Platform(
            "azure",
            {"region": "westeurope", "zone": "1"},
            {
                "azure_name": "vm",
                "azure_location": "westeurope",
                "azure_vmId": "id",
                "azure_team": "shop",
                "azure_a:b": "c;d",
            },
            {"team": "shop", "a:b": "c;d"},
        )
    )


def test_azures_older_form_of_tags(places: Places, server: FakeMetadataServer) -> None:
    found = azure(places, server, {"name": "vm", "zone": "", "tags": "team:shop;url:http://x;bad"})
    assert found.platform.labels == {"team": "shop", "url": "http://x"}
    assert found.platform.locality == {}


def test_azure_without_types(places: Places, server: FakeMetadataServer) -> None:
    found = azure(places, server, {"name": 5, "location": None, "tags": [], "tagsList": {}})
    assert found == Found(Platform("azure"))


@pytest.mark.parametrize("document", ["[1]", "{", "null", "[" * 100_000, "<html>"])
def test_azure_that_makes_no_sense_is_a_warning(places: Places, server: FakeMetadataServer, document: str) -> None:
    found = azure(places, server, document)
    assert found.platform == Platform()
    assert only_warning(found) == f"cloud metadata from {server.url}: {AZURE_PATH}: the answer is not a JSON object"


# Google


def test_google(places: Places, server: FakeMetadataServer) -> None:
    server.facts, server.required_headers = GOOGLE, {"Metadata-Flavor": "Google"}
    locality = {"region": "europe-west1", "zone": "europe-west1-b"}
    assert find(places, cloud_platform="gcp", kubernetes_service_host="10.96.0.1") == Found(
        Platform("gcp", locality, GOOGLE_METADATA)
    )
    assert not find(places, cloud_platform="gcp").platform.is_kubernetes


def test_a_google_machine_outside_a_cluster(places: Places, server: FakeMetadataServer) -> None:
    server.facts = {path: text for path, text in GOOGLE.items() if "/attributes/" not in path}
    found = find(places, cloud_platform="gcp").platform.metadata
    assert found["gcp_location"] == "europe-west1-b"
    assert not {"gcp_gke_cluster_name", "gcp_gke_cluster_url", "gcp_gce_instance_template"} & set(found)


def test_google_at_a_host_of_its_own(places: Places, server: FakeMetadataServer) -> None:
    server.facts = GOOGLE
    elsewhere = places._replace(server="http://127.0.0.1:1")
    assert find(elsewhere, gce_metadata_host=server.host).platform.metadata == GOOGLE_METADATA
    by_name = server.host.replace("127.0.0.1", "localhost")
    assert find(elsewhere, gce_metadata_host=by_name).platform.metadata == GOOGLE_METADATA


@pytest.mark.parametrize("host", ["127.0.0.1:x", "[::1", "ü" * 70, "127.0.0.1:1"])
def test_a_host_that_is_none_is_a_warning(places: Places, host: str) -> None:
    found = find(places, gce_metadata_host=host)
    assert found.platform == Platform()
    assert only_warning(found).startswith(f"cloud metadata from http://{host}: ")


def test_a_name_that_is_none_is_a_warning(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    found = find(places, gce_metadata_host="metadata")
    assert only_warning(found).endswith(": no answer: metadata has no address")


def test_a_resolver_that_hangs_is_not_waited_for(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    is_over, is_done = threading.Event(), threading.Event()

    def hang(*_: Any, flags: int = 0, **__: Any) -> Any:
        if not flags:
            is_over.wait()
            is_done.set()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    found = find(places, soon(0.1), gce_metadata_host="metadata")
    assert only_warning(found).endswith(": no answer in time")
    is_over.set()
    is_done.wait()


TOLD = "shop|123|main|europe-west1"


def test_google_is_not_asked_what_was_told(places: Places, server: FakeMetadataServer) -> None:
    found = find(places, gcp_metadata=TOLD, gcp_quota_project="quota", gcp_zone="europe-west1-c")
    assert found == Found(
        Platform(
            "gcp",
            {"region": "europe-west1", "zone": "europe-west1-c"},
            {
                **{key: value for key, value in GOOGLE_METADATA.items() if "gce" not in key},
                "gcp_quota_project": "quota",
                "gcp_zone": "europe-west1-c",
            },
            is_kubernetes=False,
        )
    )
    assert server.asked == []


def test_told_without_a_zone_the_location_is_where_it_is(places: Places) -> None:
    assert find(places, gcp_metadata=TOLD).platform.locality == {"region": "europe-west1"}
    assert find(places, gcp_metadata="shop|123||").platform.locality == {}


def test_zone_and_quota_count_only_with_what_was_told(places: Places, server: FakeMetadataServer) -> None:
    server.facts = GOOGLE
    found = find(places, cloud_platform="gcp", gcp_quota_project="quota", gcp_zone="europe-west1-c").platform
    assert found.metadata == GOOGLE_METADATA
    assert found.locality["zone"] == "europe-west1-b"


def test_what_was_told_wrongly_is_a_warning_and_google_is_asked(places: Places, server: FakeMetadataServer) -> None:
    server.facts = GOOGLE
    found = find(places, gcp_metadata="shop|123")
    assert found.platform.metadata == GOOGLE_METADATA
    assert only_warning(found) == (
        "GCP_METADATA='shop|123' is not PROJECT|NUMBER|CLUSTER|LOCATION: asking the metadata server instead"
    )


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("search default.svc.cluster.local us-east4-a.c.shop.internal c.shop.internal google.internal\n", "us-east4-a"),
        ("nameserver 10.0.0.10\nsearch us-east4-a.c.example.com.shop.internal.\n", "us-east4-a"),
        ("domain us-east4-a.c.shop.internal\n", "europe-west1-b"),
        ("search c.shop.internal\n\n", "europe-west1-b"),
        ("search\n", "europe-west1-b"),
        ("\xff", "europe-west1-b"),
    ],
)
def test_a_search_domain_says_the_zone(places: Places, server: FakeMetadataServer, text: str, zone: str) -> None:
    server.facts = GOOGLE
    places.resolv_conf.write_text(text, encoding="latin-1")
    assert find(places, cloud_platform="gcp").platform.locality["zone"] == zone


# Faults

FACTS = {"aws": AWS, "azure": {AZURE_PATH: '{"name": "vm"}'}, "gcp": GOOGLE}


@pytest.mark.parametrize("name", CLOUDS)
@pytest.mark.parametrize("fault", ["hang", "garbage", "slow", "cut", "long", "redirect"])
def test_a_cloud_that_fails_is_none_and_a_warning(
    places: Places, server: FakeMetadataServer, name: str, fault: Fault
) -> None:
    server.facts, server.faults = FACTS[name], {"": fault}
    found = find(places, soon(0.3), cloud_platform=name)
    assert found.platform == Platform()
    assert only_warning(found)
    assert "\n" not in only_warning(found)


@pytest.mark.parametrize("name", CLOUDS)
def test_a_cloud_that_is_not_there_is_none_and_a_warning(places: Places, name: str) -> None:
    found = find(places._replace(server="http://127.0.0.1:1"), cloud_platform=name)
    assert found.platform == Platform()
    assert "no answer" in only_warning(found)


def test_what_was_said_before_the_failure_is_kept(places: Places, server: FakeMetadataServer) -> None:
    server.facts, server.faults = AWS, {"/latest/meta-data/placement/availability-zone": "hang"}
    found = find(places, cloud_platform="aws")
    assert found.platform == Platform("aws", {"region": "us-east-1"}, {"aws_region": "us-east-1"})
    assert only_warning(found).endswith("/latest/meta-data/placement/availability-zone: no answer in time")
    assert len(server.asked) == 3  # and not the instance's id: who is silent once is asked no more


@pytest.mark.parametrize("text", ["<html>\n<body>", "x" * 2000, "a\x00b"])
def test_what_is_no_fact_is_left_out_with_a_warning(places: Places, server: FakeMetadataServer, text: str) -> None:
    server.facts = {**AWS, "/latest/meta-data/placement/region": text}
    found = find(places, cloud_platform="aws")
    assert set(found.platform.metadata) == {"aws_availability_zone", "aws_instance_id"}
    assert only_warning(found).endswith("/latest/meta-data/placement/region is no line of text")


@pytest.mark.parametrize("name", CLOUDS)
def test_no_time_left_is_no_answer(places: Places, server: FakeMetadataServer, name: str) -> None:
    server.facts = FACTS[name]
    found = find(places, Deadline.after(0.0, ManualClock()), cloud_platform=name)
    assert found.platform == Platform()
    assert "no answer in time" in only_warning(found)
    assert server.asked == []


def test_a_proxy_is_not_asked(places: Places, server: FakeMetadataServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    server.facts = AWS
    assert find(places, cloud_platform="aws") == Found(AWS_FOUND)


def test_a_machine_in_no_cloud_imports_no_http_client(tmp_path: Path) -> None:
    """All this runs before Envoy is spawned."""
    code = (
        "import sys; from pathlib import Path\n"
        "from pilot_agent.cloud.platform import CloudVariables, Places, find_platform\n"
        f"find_platform(CloudVariables(), places=Places(Path({str(tmp_path)!r})))\n"
        "print(sorted({'http.client', 'socket', 'threading', 'ssl'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
