"""The local mesh against a real Envoy: it takes what we publish, at once, and no request is lost over it."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from pilot_agent.mesh.model import Options
from tests.support.applications import application
from tests.support.eventually import eventually
from tests.support.mesh_proxy import Proxy, get, mesh_proxy, said, saying
from tests.support.ports import free_ports
from tests.unit.mesh.declared import service_entry


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


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Proxy]]:
    with ExitStack() as stack:

        def start(mode: str = "NONE") -> Proxy:
            return stack.enter_context(mesh_proxy(tmp_path, interception_mode=mode))

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
