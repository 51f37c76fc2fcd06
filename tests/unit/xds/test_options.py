"""How istiod is called, from the settings (reference security-xds.md, section 5.2)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot_agent.errors import SettingsError
from pilot_agent.settings.model import ProxyFlags, Settings
from pilot_agent.settings.sources import load
from pilot_agent.values import HostPort
from pilot_agent.xds.options import XdsOptions, work_out_xds


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def settings(config: str = "", **env: str) -> Settings:
    return load(ProxyFlags(), {**env, "PROXY_CONFIG": config}, {})


def options(config: str = "", **env: str) -> XdsOptions:
    return work_out_xds(settings(config, **env))


def test_the_defaults(here: Path) -> None:
    found = options()
    (istiod,) = found.istiods
    assert istiod.address == HostPort("istiod.istio-system.svc", 15012)
    assert (istiod.is_plaintext, istiod.server_name) == (False, "istiod.istio-system.svc")
    assert istiod.root == here / "var/run/secrets/istio/root-cert.pem"
    assert (istiod.client, istiod.headers) == (None, ())
    assert (found.keepalive_interval_s, found.keepalive_timeout_s, found.largest_request) == (30.0, 10.0, 4194304)
    assert found.roots == [istiod.root]


def test_several_addresses_are_kept_in_order() -> None:
    found = options('{"discoveryAddress": "a:15012, [::1]:15012,localhost:1"}')
    assert [str(each.address) for each in found.istiods] == ["a:15012", "[::1]:15012", "localhost:1"]
    assert [each.server_name for each in found.istiods] == ["a", "::1", "istiod.istio-system.svc"]


def test_one_wrong_address_of_several_is_named() -> None:
    with pytest.raises(SettingsError, match=r"discoveryAddress.*'b' is not an address"):
        options('{"discoveryAddress": "a:15012,b"}')


def test_plaintext_only_by_the_policy() -> None:
    (istiod,) = options('{"controlPlaneAuthPolicy": "NONE", "discoveryAddress": "i:15010"}', PROV_CERT="x").istiods
    assert (istiod.is_plaintext, istiod.root, istiod.client) == (True, None, None)
    (other,) = options('{"discoveryAddress": "i:15010"}').istiods
    assert not other.is_plaintext, "a port is no policy here"


def test_the_name_of_the_server_can_be_told() -> None:
    (istiod,) = options(ISTIOD_SAN="istiod.other", CA_ADDR="ca:1").istiods
    assert istiod.server_name == "istiod.other"


def test_headers_and_cluster() -> None:
    (istiod,) = options(XDS_HEADER_A="1", XDS_HEADER_B_C="x=y", ISTIO_META_CLUSTER_ID="c1").istiods
    assert (istiod.headers, istiod.cluster_id) == ((("a", "1"), ("b_c", "x=y")), "c1")
    assert "x=y" not in repr(istiod)


def test_a_header_that_can_not_be_sent_is_an_error_without_its_value() -> None:
    with pytest.raises(SettingsError, match="XDS_HEADER_A") as raised:
        options(XDS_HEADER_A="caf\u00e9-secret")
    assert "secret" not in str(raised.value)


def test_the_root_in_istios_order(here: Path) -> None:
    mounted = here / "etc/certs/root-cert.pem"
    named = '{"proxyMetadata": {"ISTIO_META_TLS_CLIENT_ROOT_CERT": "/mine/root.pem"}}'
    provisioned = {"PROV_CERT": "prov"}
    file_mounted = {"FILE_MOUNTED_CERTS": "true"}

    def root(config: str = "", **env: str) -> Path | None:
        return options(config, **env).istiods[0].root

    assert root(named, **file_mounted) == Path("/mine/root.pem")
    assert root(named) == here / "var/run/secrets/istio/root-cert.pem"
    assert root(**provisioned) == here / "prov/root-cert.pem"
    mounted.parent.mkdir(parents=True)
    mounted.touch()
    assert root(**provisioned) == mounted
    assert root(named, **file_mounted) == mounted
    assert root(OUTPUT_CERTS="etc/certs") == here / "var/run/secrets/istio/root-cert.pem", (
        "our own output proves nothing"
    )
    assert root(XDS_ROOT_CA="/own.pem") == Path("/own.pem")
    assert root(XDS_ROOT_CA="SYSTEM") is None


def test_a_provider_without_a_root_needs_one() -> None:
    with pytest.raises(SettingsError, match="set XDS_ROOT_CA to a file, or to SYSTEM"):
        options(PILOT_CERT_PROVIDER="none")


def test_a_certificate_of_our_own(here: Path) -> None:
    named = '{"proxyMetadata": {"ISTIO_META_TLS_CLIENT_CERT_CHAIN": "/c", "ISTIO_META_TLS_CLIENT_KEY": "/k"}}'
    client = options(named, FILE_MOUNTED_CERTS="true").istiods[0].client
    assert client is not None and (client.chain, client.key) == (Path("/c"), Path("/k"))
    assert options(named).istiods[0].client is None
    provisioned = options(PROV_CERT="prov").istiods[0].client
    assert provisioned is not None and provisioned.chain == here / "prov/cert-chain.pem"


@pytest.mark.parametrize(
    ("interval", "timeout", "expected"),
    [
        ("30s", "10s", (30.0, 10.0)),
        ("1ms", "100us", (0.001, 0.001)),
        ("0s", "0s", (None, 20.0)),
        ("-1s", "-1s", (None, 20.0)),
        ("100000h", "100000h", (360_000_000.0, 360_000_000.0)),
    ],
)
def test_how_often_a_connection_is_tried(interval: str, timeout: str, expected: tuple[float | None, float]) -> None:
    assert options(GRPC_KEEPALIVE_INTERVAL=interval, GRPC_KEEPALIVE_TIMEOUT=timeout).keepalive == expected
