"""The local mesh against a real Envoy: it takes what we publish, at once, and no request is lost over it."""

import json
import re
import socket
import socketserver
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from pilot_agent.mesh.model import Options
from tests.support.applications import application
from tests.support.envoy_binary import envoy_binary
from tests.support.eventually import eventually
from tests.support.ports import free_ports
from tests.unit.mesh.declared import Mesh, service_entry


class Saying(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.sendall(str(self.server.name).encode())  # type: ignore[attr-defined]


@pytest.fixture
def backend() -> Iterator[Callable[[str], int]]:
    """Start an HTTP server that answers with the given name; its port."""
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(application(name)).port


@pytest.fixture
def tcp_backend() -> Iterator[Callable[[str], int]]:
    """Start a TCP server that says the given name and closes; its port."""
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(saying(name))


@contextmanager
def saying(name: str) -> Iterator[int]:
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Saying)
    server.name = name  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Proxy:
    """A local mesh and the Envoy that reads it."""

    def __init__(self, directory: Path, options: Options, admin_port: int) -> None:
        self.mesh = Mesh(directory, options)
        self.mesh.local.load()
        self.options = options
        self.admin_port = admin_port
        self._bootstrap = directory / "bootstrap.json"

    def argv(self) -> list[str]:
        local = self.mesh.local
        bootstrap = {
            "node": {"id": "test", "cluster": "test"},
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": self.admin_port}}},
            "dynamic_resources": {
                "lds_config": _watched(local.lds_path),
                "cds_config": _watched(local.cds_path),
            },
        }
        self._bootstrap.write_text(json.dumps(bootstrap))
        options = "--disable-hot-restart --concurrency 1 -l warning --drain-time-s 1"
        return [str(envoy_binary()), "-c", str(self._bootstrap), *options.split()]

    def admin(self, path: str) -> str:
        return get(self.admin_port, path)

    def stats(self, pattern: str) -> dict[str, int]:
        lines = (line.rpartition(": ") for line in self.admin("/stats").splitlines())
        return {name: int(value) for name, _, value in lines if re.search(pattern, name) and value.isdigit()}

    def complaints(self) -> dict[str, int]:
        """Updates Envoy refused or could not read, of any resource: should be none."""
        found = self.stats(r"update_(rejected|failure)$|deprecated_feature_use$")
        return {name: value for name, value in found.items() if value}

    def listeners(self) -> set[str]:
        return {line.partition("::")[0] for line in self.admin("/listeners").splitlines()}

    def versions(self) -> tuple[str, str]:
        found = dict(line.split(": ", 1) for line in self.admin("/stats?type=TextReadouts").splitlines())
        return (
            found["listener_manager.lds.version_text"].strip('"'),
            found["cluster_manager.cds.version_text"].strip('"'),
        )

    def reload(self) -> None:
        """Reload, and wait until Envoy has it."""
        self.mesh.local.reload()
        published = self.mesh.local.published
        assert published is not None and not self.mesh.local.errors
        eventually(lambda: self.versions() == (published.lds, published.cds))


def _watched(path: Path) -> dict[str, object]:
    source = {"path": str(path), "watched_directory": {"path": str(path.parent)}}
    return {"path_config_source": source, "resource_api_version": "V3"}


def get(port: int, path: str = "/", host: str = "") -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"host": host} if host else {})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return f"{error.code}"


def said(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        return connection.makefile().read()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Proxy]]:
    with ExitStack() as stack:

        def start(mode: str = "NONE") -> Proxy:
            outbound, inbound, admin = free_ports(3)
            options = Options(interception_mode=mode, outbound_port=outbound, inbound_port=inbound)  # type: ignore[arg-type]
            proxy = Proxy(tmp_path, options, admin)
            log = stack.enter_context((tmp_path / "envoy.log").open("wb"))
            envoy = subprocess.Popen(proxy.argv(), stdout=log, stderr=log)
            stack.callback(envoy.wait, 10)
            stack.callback(envoy.kill)
            eventually(lambda: proxy.admin("/ready").strip() == "LIVE", within=15)
            return proxy

        yield start


@pytest.mark.parametrize("mode", ["NONE", "REDIRECT"])
def test_an_empty_directory_gives_the_virtual_listeners(start: Callable[[str], Proxy], mode: str) -> None:
    proxy = start(mode)
    assert proxy.listeners() == {"virtualOutbound", "virtualInbound"}
    names = re.findall(r"^([^:]+)::observability_name", proxy.admin("/clusters"), re.MULTILINE)
    assert sorted(names) == ["BlackHoleCluster", "InboundPassthroughClusterIpv4", "PassthroughCluster"]
    for port in (proxy.options.outbound_port, proxy.options.inbound_port):
        try:
            assert said(port) == ""  # the blackhole: nobody redirected this connection
        except ConnectionResetError:
            pass
    assert proxy.complaints() == {}


@pytest.mark.parametrize("resolution", ["STATIC", "DNS", "DNS_ROUND_ROBIN"])
def test_http_reaches_a_real_server(
    start: Callable[[str], Proxy], backend: Callable[[str], int], resolution: str
) -> None:
    proxy, (port,) = start("NONE"), free_ports(1)
    endpoint = "127.0.0.1" if resolution == "STATIC" else "localhost"
    text = service_entry("app", port=port, target=backend("one"), resolution=resolution, endpoint=endpoint)
    proxy.mesh.write("app.yaml", text)
    proxy.reload()
    assert f"127.0.0.1_{port}" in proxy.listeners()
    assert eventually(lambda: get(port, host="app.example.com")) == "one"
    assert get(port, host=f"app.example.com:{port}") == "one"
    assert get(port, host="somebody-else.org") == "503"  # without interception there is no original destination
    assert proxy.complaints() == {}


def test_tcp_reaches_a_real_server(start: Callable[[str], Proxy], tcp_backend: Callable[[str], int]) -> None:
    proxy, (port,) = start("NONE"), free_ports(1)
    proxy.mesh.write("db.yaml", service_entry("db", port=port, protocol="TCP", target=tcp_backend("hello")))
    proxy.reload()
    assert eventually(lambda: said(port)) == "hello"
    assert proxy.complaints() == {}


def test_every_kind_is_accepted_with_interception(start: Callable[[str], Proxy]) -> None:
    proxy = start("REDIRECT")
    texts = [
        service_entry("web", port=80, addresses=("10.0.0.1",)),
        service_entry("rpc", port=81, protocol="GRPC", resolution="DNS", endpoint="localhost"),
        service_entry("tls", port=443, protocol="TLS", resolution="NONE", endpoint=""),
        service_entry("any", host="'*.any.org'", port=443, protocol="HTTPS", resolution="NONE", endpoint=""),
        service_entry("db", port=3306, protocol="TCP", addresses=("10.0.0.2", "10.1.0.0/16")),
        service_entry("raw", port=9000, protocol="TCP", resolution="DNS_ROUND_ROBIN", endpoint="localhost"),
    ]
    proxy.mesh.write("all.yaml", "---\n".join(texts))
    proxy.reload()
    virtual = {"virtualOutbound", "virtualInbound"}
    wildcard = {f"0.0.0.0_{port}" for port in (80, 81, 443, 3306, 9000)}
    eventually(lambda: proxy.listeners() == wildcard | virtual | {"10.0.0.2_3306"})
    assert proxy.complaints() == {}


def test_endpoints_change_and_services_go_live(start: Callable[[str], Proxy], backend: Callable[[str], int]) -> None:
    proxy, (port, other) = start("NONE"), free_ports(2)
    one, two = backend("one"), backend("two")
    proxy.mesh.write("app.yaml", service_entry("app", port=port, target=one))
    proxy.mesh.write("other.yaml", service_entry("other", port=other, target=one))
    proxy.reload()
    assert eventually(lambda: get(port, host="app.example.com")) == "one"
    before = proxy.versions()
    proxy.mesh.write("app.yaml", service_entry("app", port=port, target=two))
    proxy.reload()
    eventually(lambda: get(port, host="app.example.com") == "two")
    assert proxy.versions() == before  # only the endpoints' own file was published
    (proxy.mesh.documents / "app.yaml").unlink()
    proxy.reload()
    eventually(lambda: f"127.0.0.1_{port}" not in proxy.listeners())
    eventually(lambda: "app.example.com" not in proxy.admin("/clusters"))
    # A port that goes must not make Envoy complain about its file when another port's routes change.
    proxy.mesh.write("third.yaml", service_entry("third", port=other, target=two))
    proxy.reload()
    eventually(lambda: get(other, host="third.example.com") == "two")
    assert proxy.complaints() == {}


def test_a_broken_file_leaves_the_last_good_one_serving(
    start: Callable[[str], Proxy], backend: Callable[[str], int]
) -> None:
    proxy, (port,) = start("NONE"), free_ports(1)
    good = service_entry("app", port=port, target=backend("one"))
    proxy.mesh.write("app.yaml", good)
    proxy.reload()
    proxy.mesh.write("app.yaml", good.replace("protocol: HTTP", "protocol: HTPP"))
    assert not proxy.mesh.local.reload().is_effective
    assert list(proxy.mesh.local.errors) == ["app.yaml"]
    assert eventually(lambda: get(port, host="app.example.com")) == "one"


@pytest.mark.parametrize("endpoint_files", [32, 0], ids=["in files", "inline"])
def test_no_request_fails_while_everything_changes(
    start: Callable[[str], Proxy], backend: Callable[[str], int], endpoint_files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Options, "__new__", _with_endpoint_files(endpoint_files))
    proxy, (port, other) = start("NONE"), free_ports(2)
    targets = [backend("one"), backend("two")]
    proxy.mesh.write("app.yaml", service_entry("app", port=port, target=targets[0]))
    proxy.reload()
    eventually(lambda: get(port, host="app.example.com") == "one")
    with requests(port, "app.example.com") as answers:
        for round_ in range(20):
            resolution = "DNS" if round_ % 5 == 4 else "STATIC"
            endpoint = "localhost" if resolution == "DNS" else "127.0.0.1"
            text = service_entry("app", port=port, target=targets[round_ % 2], resolution=resolution, endpoint=endpoint)
            proxy.mesh.write("app.yaml", text)
            # Neighbours come and go: on the same listener and route configuration, and on their own.
            for name, where in (("same", port), ("own", other)):
                if round_ % 2:
                    (proxy.mesh.documents / f"{name}.yaml").unlink()
                else:
                    proxy.mesh.write(f"{name}.yaml", service_entry(name, port=where, target=targets[0]))
            proxy.reload()
            seen = len(answers)
            eventually(lambda seen=seen: len(answers) >= seen + 3)  # type: ignore[misc]
    assert set(answers) == {"one", "two"}
    assert proxy.complaints() == {}


def _with_endpoint_files(count: int) -> Callable[..., Options]:
    make = Options.__new__

    def new(cls: type[Options], *args: object, **kwargs: object) -> Options:
        return make(cls, *args, **{"endpoint_files": count, **kwargs})  # type: ignore[arg-type]

    return new


@contextmanager
def requests(port: int, host: str) -> Iterator[list[str]]:
    """Requests one after the other for as long as the block runs; what each was answered, or how it failed."""
    answers: list[str] = []
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            try:
                answers.append(get(port, host=host))
            except OSError as error:
                answers.append(repr(error))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        is_over.set()
        thread.join()
