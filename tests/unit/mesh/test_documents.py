"""What a directory of documents means, and what every refusal says: file, line, field, value, what to do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.mesh import documents
from pilot_agent.mesh.documents import MeshReader, read_directory
from pilot_agent.mesh.model import Document, Options, ServiceEntry
from pilot_agent.mesh.reading.kinds import KINDS, FileReader
from pilot_agent.mesh.view import see
from tests.unit.mesh.declared import service_entry

GOOD = service_entry("good")

HEAD = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata:
  name: orders
spec:
"""
PORTS = """\
  ports:
  - number: 80
    name: http
    protocol: HTTP
"""


def refusal(tmp_path: Path, text: str | bytes, name: str = "a.yaml") -> str:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    reading = read_directory(tmp_path)
    assert reading.resources == ()
    return str(reading.errors[name])


BROKEN_FIELDS = {
    "a port that is text": (
        HEAD + "  hosts: [a.org]\n  ports:\n  - number: eighty\n    name: http\n",
        "a.yaml:8: spec.ports[0].number: 'eighty' is not a port number; give a number from 1 to 65535",
    ),
    "a port out of range": (
        HEAD + "  hosts: [a.org]\n  ports:\n  - name: http\n    number: 70000\n",
        "a.yaml:9: spec.ports[0].number: 70000 is not a port: ports go from 1 to 65535; give a number from 1 to 65535",
    ),
    "an unknown protocol": (
        HEAD + "  hosts: [a.org]\n  ports:\n  - number: 80\n    name: x\n    protocol: HTPP\n",
        "a.yaml:10: spec.ports[0].protocol: 'HTPP' is unknown: use one of GRPC, GRPC-WEB, HTTP, HTTP2, HTTPS, "
        "HTTP_PROXY, MONGO, MYSQL, REDIS, TCP, TLS",
    ),
    "a port twice": (
        HEAD + "  hosts: [a.org]\n" + PORTS + "  - number: 80\n    name: other\n    protocol: TCP\n",
        "a.yaml:11: spec.ports[1].number: 80 is there twice: remove one of the ports",
    ),
    "no hosts": (
        HEAD + PORTS,
        "a.yaml:5: spec.hosts: is missing or empty: give at least one host name",
    ),
    "a host that is none": (
        HEAD + "  hosts:\n  - a.org\n  - a b\n" + PORTS,
        "a.yaml:8: spec.hosts[1]: 'a b' is not a host name: write a name such as api.example.com or *.example.com",
    ),
    "an unknown resolution": (
        HEAD + "  hosts: [a.org]\n" + PORTS + "  resolution: STATC\n",
        "a.yaml:11: spec.resolution: 'STATC' is unknown: use one of NONE, STATIC, DNS, DNS_ROUND_ROBIN",
    ),
    "a name where an address must be": (
        HEAD + "  hosts: [a.org]\n" + PORTS + "  resolution: STATIC\n  endpoints:\n  - address: b.org\n",
        "a.yaml:13: spec.endpoints[0].address: 'b.org' is not an IP address: give one, or use resolution DNS for a "
        "host name",
    ),
    "an endpoint's port of an unknown name": (
        HEAD
        + "  hosts: [a.org]\n"
        + PORTS
        + "  resolution: DNS\n  endpoints:\n  - address: b.org\n    ports: {web: 8}\n",
        "a.yaml:14: spec.endpoints[0].ports.web: is not the name of a port in spec.ports: use one of http",
    ),
    "STATIC without endpoints": (
        HEAD + "  hosts: [a.org]\n" + PORTS + "  resolution: STATIC\n",
        "a.yaml:5: spec.endpoints: is missing: resolution STATIC needs the addresses of the service, or a "
        "workloadSelector",
    ),
    "endpoints without resolution": (
        HEAD + "  hosts: [a.org]\n" + PORTS + "  endpoints:\n  - address: 1.2.3.4\n",
        "a.yaml:11: spec.endpoints: are given with resolution NONE: remove them, or use resolution STATIC or DNS",
    ),
    "two endpoints for DNS_ROUND_ROBIN": (
        HEAD
        + "  hosts: [a.org]\n"
        + PORTS
        + "  resolution: DNS_ROUND_ROBIN\n  endpoints: [{address: b.c}, {address: d.e}]\n",
        "a.yaml:12: spec.endpoints: has 2 elements: DNS_ROUND_ROBIN takes one at most; use DNS for more",
    ),
    "a wildcard that must be resolved": (
        HEAD + "  hosts: ['*.a.org']\n" + PORTS + "  resolution: DNS\n",
        "a.yaml:6: spec.hosts[0]: '*.a.org' can't be resolved: give endpoints, or a name without a wildcard",
    ),
    "an address that is none": (
        HEAD + "  hosts: [a.org]\n  addresses: [10.0.0.300]\n" + PORTS,
        "a.yaml:7: spec.addresses[0]: '10.0.0.300' is not an address: give an IP address or a range such as "
        "10.0.0.0/24",
    ),
    "a list where a mapping must be": (
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: a}\nspec: []\n",
        "a.yaml:4: spec: a list is not a mapping: write `key: value` lines below it",
    ),
    "a version that is not known": (
        GOOD.replace("istio.io/v1", "istio.io/v9"),
        "a.yaml:1: apiVersion: 'networking.istio.io/v9' is unknown: use one of networking.istio.io/v1, "
        "networking.istio.io/v1beta1, networking.istio.io/v1alpha3",
    ),
    "weights beyond Envoy's": (
        HEAD
        + "  hosts: [a.org]\n"
        + PORTS
        + "  resolution: STATIC\n  endpoints:\n"
        + "  - {address: 1.1.1.1, weight: 4294967295}\n  - {address: 1.1.1.2, weight: 1}\n",
        "a.yaml:12: spec.endpoints: have weights of more than 4294967295 together: use smaller weights",
    ),
    "the second of two documents": (
        GOOD + "---\n# between\n" + HEAD + "  hosts: [b.org]\n  ports: [{number: 0, name: x}]\n",
        f"a.yaml:{len(GOOD.splitlines()) + 9}: spec.ports[0].number: 0 is not a port: ports go from 1 to 65535; "
        "give a number from 1 to 65535",
    ),
    "an item of a list": (
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: networking.istio.io/v1\n  kind: ServiceEntry\n"
        "  metadata: {name: a}\n  spec:\n    hosts: 5\n",
        "a.yaml:8: items[0].spec.hosts: 5 is not a list: start each element with `- `",
    ),
    "no kind": ("a: 1\n", "a.yaml:1: kind: is missing: say what the document is, such as ServiceEntry"),
    "plain text": ("hello\n", "a.yaml:1: 'hello' is not a Kubernetes object: start with apiVersion and kind"),
}


@pytest.mark.parametrize(("text", "message"), BROKEN_FIELDS.values(), ids=BROKEN_FIELDS.keys())
def test_a_wrong_value_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, text) == message


BROKEN_TEXTS: dict[str, tuple[str | bytes, str]] = {
    "an open bracket": (HEAD + "  hosts: [a.org\n", "a.yaml:7: not YAML: while parsing a flow sequence"),
    "a tab": ("kind: x\n\tspec: 1\n", "a.yaml:2: not YAML: while scanning"),
    "a key twice": ("kind: A\nspec: 1\nkind: B\n", "a.yaml:3: not YAML: the key 'kind' is there twice: remove one"),
    "no UTF-8": (b"kind: x\nspec: \xff\n", "a.yaml:2: byte 0xff is not UTF-8"),
    "a control character": ("kind: x\nspec: \x01\n", "a.yaml:2: not YAML: control characters are not allowed"),
    "an unknown tag": ("kind: !!python/object:os.system x\n", "a.yaml:1: not YAML: could not determine a constructor"),
    "an impossible date": ("when: 2024-13-45\n", "a.yaml:1: not YAML: month must be in 1..12: put the value in quotes"),
    "brackets that would crash the parser": ("[" * 500_000, "a.yaml:1: nested deeper than 500 levels: flatten it"),
    "dashes that would crash the parser": ("- " * 500_000, "a.yaml:1: nested deeper than 500 levels: flatten it"),
    "too many documents": ("---\n" * 10_001, "a.yaml:1: more than 10000 documents: split the file"),
}


@pytest.mark.parametrize(("text", "message"), BROKEN_TEXTS.values(), ids=BROKEN_TEXTS.keys())
def test_text_that_is_not_yaml_is_refused_with_its_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert refusal(tmp_path, text).startswith(message)


def test_json_is_read_as_json(tmp_path: Path) -> None:
    text = '{\n\t"kind": "ServiceEntry",\n\t"apiVersion": "networking.istio.io/v1"\n\t"spec": {}}'
    assert refusal(tmp_path, text, "a.json") == "a.json:4: not JSON: Expecting ',' delimiter at column 2"
    assert "the key 'kind' is there twice" in refusal(tmp_path, '{"kind": 1,\n"kind": 2}', "a.json")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_FILE", 2**20)
    assert refusal(tmp_path, b"#" * (2**20 + 1)) == "a.yaml: is larger than 1 MiB: split it"


def test_what_is_not_supported_is_a_warning_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        GOOD.replace("spec:\n", "spec:\n  networks: ['.']\n  resolutio: DNS\n")
        + "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g}\n"
    )
    reading = read_directory(tmp_path)
    assert [str(warning) for warning in reading.warnings] == [
        "a.yaml:5: spec.networks: is not supported here and has no effect",
        "a.yaml:6: spec.resolutio: is not supported here and has no effect; did you mean resolution?",
        "a.yaml:19: kind: 'Gateway' is not supported here and has no effect; supported: " + ", ".join(KINDS),
    ]
    assert [entry.name for entry in reading.resources] == ["good"]


def test_a_whole_entry_is_understood(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(
        HEAD.replace("  name: orders", "  name: orders\n  namespace: shop")
        + "  hosts: [orders.shop.svc.cluster.local]\n  addresses: [10.1.1.1, 10.2.0.0/16, 'FD00::0:1']\n"
        + PORTS
        + "    targetPort: 8080\n  location: MESH_INTERNAL\n  resolution: STATIC\n  endpoints:\n"
        + "  - {address: 10.9.9.9, weight: 3, locality: eu/eu-1, ports: {http: 9090}, labels: {v: '1'}}\n"
    )
    (entry,) = read_directory(tmp_path).resources
    assert isinstance(entry, ServiceEntry)
    assert (entry.namespace, entry.hosts, entry.location) == (
        "shop",
        ("orders.shop.svc.cluster.local",),
        "MESH_INTERNAL",
    )
    assert entry.addresses == ("10.1.1.1", "10.2.0.0/16", "fd00::1")
    assert (entry.ports[0].number, entry.ports[0].target_port, entry.ports[0].protocol) == (80, 8080, "HTTP")
    (endpoint,) = entry.endpoints
    assert (endpoint.weight, endpoint.locality, endpoint.port(entry.ports[0])) == (3, ("eu", "eu-1", ""), 9090)


def test_only_visible_documents_count(tmp_path: Path) -> None:
    for name in (".hidden.yaml", "..data", "notes.txt", "a.yaml~"):
        (tmp_path / name).write_text("broken: [")
    (tmp_path / "folder.yaml").mkdir()
    assert read_directory(tmp_path).errors == {}


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "link.yaml").symlink_to("nowhere")
    errors = [str(error) for error in read_directory(tmp_path).errors.values()]
    assert errors == [
        "link.yaml: points to a file that does not exist: correct the link",
        "pipe.yaml: is not a regular file: remove it",
    ]


class TestConflicts:
    def test_the_same_host_and_port(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text(service_entry("one", host="api.org"))
        (tmp_path / "b.yaml").write_text(service_entry("two", host="API.org"))
        reading = read_directory(tmp_path)
        assert [entry.name for entry in reading.resources] == ["one"]
        assert str(reading.errors["b.yaml"]) == (
            "b.yaml:5: spec.hosts[0]: API.org:8000 belongs to one (a.yaml:1) already: change or remove one of them"
        )

    def test_http_and_tcp_on_one_port(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text(service_entry("one"))
        (tmp_path / "b.yaml").write_text(service_entry("two", protocol="TCP"))
        assert str(read_directory(tmp_path).errors["b.yaml"]) == (
            "b.yaml:10: spec.ports[0].protocol: listener 0.0.0.0_8000 is TCP here but HTTP in one (a.yaml:1): "
            "change one"
        )

    def test_tcp_services_without_addresses_on_one_port(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text(service_entry("one", protocol="TCP"))
        (tmp_path / "b.yaml").write_text(service_entry("two", protocol="TCP"))
        assert "b.yaml:8: spec.ports[0].number: listener 0.0.0.0_8000 belongs to one" in str(
            read_directory(tmp_path).errors["b.yaml"]
        )

    def test_tcp_services_with_addresses_only_without_interception(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text(service_entry("one", protocol="TCP", addresses=("10.0.0.1",)))
        (tmp_path / "b.yaml").write_text(service_entry("two", protocol="TCP", addresses=("10.0.0.2",)))
        assert read_directory(tmp_path).errors == {}
        assert "listener 127.0.0.1_8000" in str(
            read_directory(tmp_path, Options(interception_mode="NONE")).errors["b.yaml"]
        )

    def test_tls_services_share_a_port_by_server_name(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text(service_entry("one", protocol="TLS", port=443))
        (tmp_path / "b.yaml").write_text(service_entry("two", protocol="TLS", port=443))
        assert read_directory(tmp_path).errors == {}

    def test_a_short_name_that_is_somebody_elses_host(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text(service_entry("one", host="api.demo.svc.cluster.local"))
        (tmp_path / "b.yaml").write_text(service_entry("two", host="api.demo"))
        assert "api.demo:8000 belongs to one" in str(read_directory(tmp_path).errors["b.yaml"])

    def test_within_one_file_nothing_of_it_serves(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text(
            f"{service_entry('one', host='x.org')}---\n{service_entry('two', host='x.org')}"
        )
        reading = read_directory(tmp_path)
        assert (reading.resources, list(reading.errors)) == ((), ["a.yaml"])

    @pytest.mark.parametrize("port", [15000, 15001, 15006, 15020, 15021, 15090])
    def test_a_port_of_the_agent(self, tmp_path: Path, port: int) -> None:
        message = refusal(tmp_path, service_entry("one", port=port))
        assert f"a.yaml:8: spec.ports[0].number: {port} is a port of the agent or of Envoy itself" in message


class TestLastGood:
    def read(self, reader: MeshReader) -> tuple[list[str], list[str]]:
        reading = reader.read()
        return sorted(entry.hosts[0] for entry in reading.resources if isinstance(entry, ServiceEntry)), list(
            reading.errors
        )

    def test_a_broken_file_keeps_serving(self, tmp_path: Path) -> None:
        reader, file = MeshReader(tmp_path, Options()), tmp_path / "a.yaml"
        file.write_text(GOOD)
        assert self.read(reader) == (["good.example.com"], [])
        file.write_text("kind: [")
        assert self.read(reader) == (["good.example.com"], ["a.yaml"])
        file.write_text(service_entry("new"))
        assert self.read(reader) == (["new.example.com"], [])
        file.unlink()
        assert self.read(reader) == ([], [])

    def test_a_broken_file_that_is_deleted_is_gone(self, tmp_path: Path) -> None:
        reader, file = MeshReader(tmp_path, Options()), tmp_path / "a.yaml"
        for text in (GOOD, "kind: ["):
            file.write_text(text)
            reader.read()
        file.unlink()
        assert self.read(reader) == ([], [])

    def test_a_new_file_takes_nothing_from_one_that_serves(self, tmp_path: Path) -> None:
        reader = MeshReader(tmp_path, Options())
        (tmp_path / "z.yaml").write_text(service_entry("z", host="x.org"))
        reader.read()
        (tmp_path / "a.yaml").write_text(service_entry("a", host="x.org"))
        assert self.read(reader) == (["x.org"], ["a.yaml"])
        (tmp_path / "z.yaml").unlink()
        assert self.read(reader) == (["x.org"], [])

    def test_a_host_may_move_between_files_at_once(self, tmp_path: Path) -> None:
        reader = MeshReader(tmp_path, Options())
        a, b = service_entry("a"), service_entry("b")
        (tmp_path / "a.yaml").write_text(a)
        (tmp_path / "b.yaml").write_text(b)
        reader.read()
        (tmp_path / "a.yaml").write_text(b)
        (tmp_path / "b.yaml").write_text(a)
        assert self.read(reader) == (["a.example.com", "b.example.com"], [])

    def test_a_host_can_not_move_away_from_a_broken_file(self, tmp_path: Path) -> None:
        reader = MeshReader(tmp_path, Options())
        (tmp_path / "a.yaml").write_text(service_entry("a"))
        (tmp_path / "b.yaml").write_text(service_entry("b"))
        reader.read()
        (tmp_path / "a.yaml").write_text(service_entry("b"))
        (tmp_path / "b.yaml").write_text("kind: [")
        assert self.read(reader) == (["a.example.com", "b.example.com"], ["a.yaml", "b.yaml"])

    def test_only_the_changed_file_is_parsed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        parsed: list[str] = []
        read = FileReader.read

        def spy(reader: FileReader, content: bytes) -> Document:
            parsed.append(reader.file)
            return read(reader, content)

        monkeypatch.setattr(FileReader, "read", spy)
        reader = MeshReader(tmp_path, Options())
        for name in ("a", "b"):
            (tmp_path / f"{name}.yaml").write_text(service_entry(name))
        reader.read()
        (tmp_path / "b.yaml").write_text(service_entry("c"))
        reader.read()
        assert parsed == ["a.yaml", "b.yaml", "b.yaml"]


def test_an_empty_directory_needs_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pilot_agent.mesh.documents import read_directory; "
        f"import pilot_agent.mesh.local; read_directory(Path({str(tmp_path)!r})); "
        "print([m for m in ('yaml', 'msgspec', 'jinja2', 'asyncio', 'hashlib') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert found.stdout.strip() == "[]"


@given(host=st.text(), name=st.text(), extra=st.text())
def test_any_text_gives_a_reading_or_a_clean_refusal(
    tmp_path_factory: pytest.TempPathFactory, host: str, name: str, extra: str
) -> None:
    import json

    from tests.unit.mesh.declared import publisher

    directory = tmp_path_factory.mktemp("any")
    document = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": name, extra: extra},
        "spec": {
            "hosts": [host],
            "ports": [{"number": 80, "name": name, "protocol": "HTTP", extra: 1}],
            "resolution": "STATIC",
            "endpoints": [{"address": "1.2.3.4", "locality": extra, "labels": {extra: host}}],
        },
    }
    (directory / "a.json").write_text(json.dumps(document))
    reading = read_directory(directory)
    assert len(reading.resources) + len(reading.errors) == 1
    for error in reading.errors.values():
        assert str(error).isprintable() and len(str(error)) < 4000
    published = publisher(directory)
    published.publish(see(reading.resources, published.options))
    for path in (directory / "xds").rglob("*.json"):
        json.loads(path.read_text())
