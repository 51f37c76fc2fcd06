"""The decision table of the identity: which CA, which root, which files, which key; and every way to be told no."""

from pathlib import Path
from typing import Any

import pytest

from pilot_agent.errors import SettingsError
from pilot_agent.identity.keys import KeySpec
from pilot_agent.identity.options import CaOptions, Files, IdentityOptions, Renewal, work_out_identity
from pilot_agent.values import HostPort
from tests.unit.settings.told import told

CONFIG_MAP_ROOT = "var/run/secrets/istio/root-cert.pem"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, which paths are relative to."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def worked_out(
    env: dict[str, str] | None = None,
    config: dict[str, Any] | None = None,
    *,
    has_workload_sds: bool = False,
    **flags: Any,
) -> IdentityOptions:
    settings = told(config or {}, env=env, **flags)
    return work_out_identity(settings, has_workload_sds=has_workload_sds)


def ca(env: dict[str, str], config: dict[str, Any] | None = None) -> CaOptions:
    found = worked_out(env, config).ca
    assert found is not None
    return found


def refusal(env: dict[str, str], **more: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        worked_out(env, **more)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text


def workload_files(here: Path, *names: str) -> Path:
    directory = here / "var/run/secrets/workload-spiffe-credentials"
    directory.mkdir(parents=True, exist_ok=True)
    for name in names or ("cert-chain.pem", "key.pem", "root-cert.pem"):
        (directory / name).write_text("x")
    return directory


# What Istio does when nothing is said


def test_the_defaults_are_istios(here: Path) -> None:
    found = worked_out({"POD_NAMESPACE": "foo", "SERVICE_ACCOUNT": "bar", "ISTIO_META_CLUSTER_ID": "Kubernetes"})
    assert found.spiffe_id == "spiffe://cluster.local/ns/foo/sa/bar"
    assert found.trust_domain == "cluster.local"
    assert found.key == KeySpec("RSA", 2048, "P256", is_pkcs8=False)
    assert found.renewal == Renewal(86400, 0.5, 0.01)
    assert found.certs == Files.of_directory(here / "etc/certs")
    assert found.crl == Path("/var/run/secrets/istio/crl/ca-crl.pem")
    assert found.token == here / "var/run/secrets/tokens/istio-token"
    assert (found.output, found.output_mode) == (None, 0o600)
    assert (found.local_ca, found.provider, found.fetcher, found.debounce_s) == (None, None, "JWT", 0.1)
    assert (found.has_ca, found.is_workload_ours, found.is_mounted, found.is_files_only) == (True, True, False, False)
    assert found.warnings == ()
    assert found.ca == CaOptions(
        address=HostPort("istiod.istio-system.svc", 15012),
        is_plaintext=False,
        server_name="istiod.istio-system.svc",
        root=here / CONFIG_MAP_ROOT,
        client=None,
        cluster_id="Kubernetes",
        cert_signer="",
        headers=(),
    )


def test_every_path_is_resolved_against_the_directory_of_the_start(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = worked_out({"OUTPUT_CERTS": "out", "PROV_CERT": "./prov"})
    monkeypatch.chdir("/")
    assert found.output == here / "out"
    assert found.ca is not None
    assert found.ca.client == Files(here / "prov/cert-chain.pem", here / "prov/key.pem", here / "prov/root-cert.pem")
    assert all(path.is_absolute() for path in (found.token, *found.certs.all))


# Whose CA


@pytest.mark.parametrize(
    ("config", "env", "address", "is_plaintext", "server_name"),
    [
        ({}, {}, "istiod.istio-system.svc:15012", False, "istiod.istio-system.svc"),
        ({"discoveryAddress": "istiod.other:15012"}, {}, "istiod.other:15012", False, "istiod.other"),
        ({"discoveryAddress": "istiod.other:15010"}, {}, "istiod.other:15010", True, "istiod.other"),
        ({"discoveryAddress": "istiod.other:15012"}, {"CA_ADDR": "ca.x:8443"}, "ca.x:8443", False, "ca.x"),
        ({}, {"CA_ADDR": "ca.x:15010"}, "ca.x:15010", True, "ca.x"),
        ({}, {"CA_ADDR": "ca.x:1501"}, "ca.x:1501", False, "ca.x"),
        ({}, {"CA_ADDR": "localhost:15012"}, "localhost:15012", False, "istiod.istio-system.svc"),
        ({}, {"CA_ADDR": "[::1]:15012"}, "[::1]:15012", False, "::1"),
        ({}, {"ISTIOD_SAN": "name.x"}, "istiod.istio-system.svc:15012", False, "name.x"),
        ({}, {"ISTIOD_SAN": "name.x", "CA_ADDR": "ca.x:15012"}, "ca.x:15012", False, "ca.x"),
    ],
)
def test_address_plaintext_and_name(
    config: dict[str, Any], env: dict[str, str], address: str, is_plaintext: bool, server_name: str
) -> None:
    found = ca(env, config)
    assert (str(found.address), found.is_plaintext, found.server_name) == (address, is_plaintext, server_name)


def test_plaintext_is_warned_of_and_needs_no_root() -> None:
    found = worked_out({"CA_ADDR": "ca.x:15010", "PILOT_CERT_PROVIDER": "none"})
    assert found.ca is not None
    assert found.ca.root is None
    assert found.warnings == (
        "the CA ca.x:15010 is asked without TLS, and gets the token in the clear: port 15012 has TLS",
    )


@pytest.mark.parametrize(
    ("env", "root"),
    [
        ({}, CONFIG_MAP_ROOT),
        ({"PILOT_CERT_PROVIDER": "kubernetes"}, CONFIG_MAP_ROOT),
        ({"PILOT_CERT_PROVIDER": "k8s.io/x"}, CONFIG_MAP_ROOT),
        ({"PILOT_CERT_PROVIDER": "custom"}, "etc/certs/root-cert.pem"),
        ({"PILOT_CERT_PROVIDER": "custom", "PROV_CERT": "prov"}, "etc/certs/root-cert.pem"),
        ({"PROV_CERT": "prov"}, "prov/root-cert.pem"),
        ({"PROV_CERT": "prov", "PILOT_CERT_PROVIDER": "none"}, "prov/root-cert.pem"),
        ({"PROV_CERT": "prov", "CA_ROOT_CA": "ca.pem"}, "ca.pem"),
        ({"CA_ROOT_CA": "/ca.pem", "PILOT_CERT_PROVIDER": "custom"}, "/ca.pem"),
        ({"CA_ROOT_CA": "SYSTEM", "PILOT_CERT_PROVIDER": "custom", "PROV_CERT": "prov"}, None),
        ({"CA_ROOT_CA": "SYSTEM", "PILOT_CERT_PROVIDER": "none"}, None),
    ],
)
def test_the_root_is_the_first_that_matches(here: Path, env: dict[str, str], root: str | None) -> None:
    assert ca(env).root == (here / root if root is not None else None)


def test_no_provider_and_no_root_is_an_error_that_says_what_to_set() -> None:
    assert "set CA_ROOT_CA" in refusal({"PILOT_CERT_PROVIDER": "none"})


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"CA_ADDR": "no-port"}, ["CA_ADDR", "'no-port'"]),
        ({"CA_ADDR": "::1:15012"}, ["CA_ADDR", "brackets"]),
        ({"CA_ADDR": "ca.x:0"}, ["CA_ADDR", "0 is not a port"]),
        ({"CA_ADDR": "meshca.googleapis.com:443"}, ["CA_ADDR", "meshca.googleapis.com:443"]),
        ({"CA_PROVIDER": "GoogleCAS"}, ["CA_PROVIDER", "'GoogleCAS'", "use Citadel"]),
        ({"CA_PROVIDER": ""}, ["CA_PROVIDER", "''"]),
        ({"CREDENTIAL_FETCHER_TYPE": "Other"}, ["CREDENTIAL_FETCHER_TYPE", "'Other'", "Mock"]),
        ({"FILE_MOUNTED_CERTS": "true", "PROV_CERT": "prov"}, ["FILE_MOUNTED_CERTS", "PROV_CERT"]),
        ({"WORKLOAD_RSA_KEY_SIZE": "1024"}, ["WORKLOAD_RSA_KEY_SIZE", "1024", "2048"]),
        ({"WORKLOAD_RSA_KEY_SIZE": "-1"}, ["WORKLOAD_RSA_KEY_SIZE", "-1"]),
        ({"WORKLOAD_RSA_KEY_SIZE": "100000"}, ["WORKLOAD_RSA_KEY_SIZE", "100000"]),
        ({"ECC_SIGNATURE_ALGORITHM": "EdDSA"}, ["ECC_SIGNATURE_ALGORITHM", "'EdDSA'", "ECDSA"]),
        ({"SECRET_TTL": "0s"}, ["SECRET_TTL"]),
        ({"SECRET_TTL": "-1h"}, ["SECRET_TTL", "-3600s"]),
        ({"SECRET_TTL": "500ms"}, ["SECRET_TTL", "0.5s"]),
        ({"SECRET_GRACE_PERIOD_RATIO": "half"}, ["SECRET_GRACE_PERIOD_RATIO", "'half'"]),
        ({"SECRET_GRACE_PERIOD_RATIO": "nan"}, ["SECRET_GRACE_PERIOD_RATIO", "'nan'"]),
        ({"SECRET_GRACE_PERIOD_RATIO": "1.01"}, ["SECRET_GRACE_PERIOD_RATIO", "from 0 to 1"]),
        ({"SECRET_GRACE_PERIOD_RATIO_JITTER": "-0.1"}, ["SECRET_GRACE_PERIOD_RATIO_JITTER", "'-0.1'"]),
        ({"CA_PROVIDER": "GkeWorkloadCertificate"}, ["certificates.pem is missing"]),
    ],
)
def test_what_can_never_work_ends_the_start(env: dict[str, str], words: list[str]) -> None:
    text = refusal(env)
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"CA_HEADER_X CA": "v"}, ["CA_HEADER_X CA"]),
        ({"CA_HEADER_X-bin": "v"}, ["CA_HEADER_X-bin"]),
        ({"CA_HEADER_:PATH": "/"}, ["CA_HEADER_:PATH"]),
        ({"CA_HEADER_\u00c9": "v"}, ["CA_HEADER_"]),
        ({"CA_HEADER_X": "a\nb"}, ["CA_HEADER_X"]),
        ({"CA_HEADER_X": "caf\u00e9"}, ["CA_HEADER_X", "printable ASCII"]),
        ({"ISTIO_META_CLUSTER_ID": "cl\u00fcster"}, ["ISTIO_META_CLUSTER_ID"]),
    ],
)
def test_a_header_that_http_can_not_carry_ends_the_start_without_showing_its_value(
    env: dict[str, str], words: list[str]
) -> None:
    text = refusal(env)
    assert all(word in text for word in words), text
    assert "caf" not in text, "a header may be a credential"


def test_headers_and_names_of_the_call() -> None:
    found = ca(
        {
            "CA_HEADER_X_CA": "a=b",
            "CA_HEADER_Authority": "z",
            "ISTIO_META_CLUSTER_ID": "c1",
            "ISTIO_META_CERT_SIGNER": "clusterissuers.x/y",
        }
    )
    assert found.headers == (("authority", "z"), ("x_ca", "a=b"))
    assert (found.cluster_id, found.cert_signer) == ("c1", "clusterissuers.x/y")


def test_no_header_is_shown() -> None:
    found = worked_out({"CA_HEADER_X_KEY": "confidential-value"})
    assert "confidential-value" not in f"{found!r} {found.ca!r} {found.ca}"


@pytest.mark.parametrize("policy", ["third-party-jwt", "first-party-jwt", "other"])
def test_the_token_is_the_third_partys_whatever_the_policy(here: Path, policy: str) -> None:
    found = worked_out({"JWT_POLICY": policy})
    assert found.token == here / "var/run/secrets/tokens/istio-token"
    assert [("deprecated" in each) for each in found.warnings] == ([True] if policy == "first-party-jwt" else [])


# Whose files


def test_a_full_workload_directory_takes_the_cas_place(here: Path) -> None:
    directory = workload_files(here)
    found = worked_out()
    assert (found.certs, found.is_mounted) == (Files.of_directory(directory), True)
    assert (found.has_ca, found.is_workload_ours) == (False, True)


@pytest.mark.parametrize("missing", ["cert-chain.pem", "key.pem", "root-cert.pem"])
def test_a_workload_directory_with_a_gap_does_not(here: Path, missing: str) -> None:
    (workload_files(here) / missing).unlink()
    found = worked_out()
    assert (found.certs, found.is_mounted, found.has_ca) == (Files.of_directory(here / "etc/certs"), False, True)


def test_mounted_certificates_need_no_root_for_a_ca(here: Path) -> None:
    workload_files(here)
    assert worked_out({"PILOT_CERT_PROVIDER": "none", "CA_ADDR": "unusable"}).ca is None


def test_gkes_names_in_the_same_directory(here: Path) -> None:
    directory = workload_files(here, "certificates.pem", "private_key.pem", "ca_certificates.pem")
    found = worked_out({"CA_PROVIDER": "GkeWorkloadCertificate"})
    assert found.certs == Files(
        directory / "certificates.pem", directory / "private_key.pem", directory / "ca_certificates.pem"
    )
    assert (found.is_mounted, found.has_ca) == (True, False)


def test_one_missing_of_gkes_is_named(here: Path) -> None:
    directory = workload_files(here, "certificates.pem", "ca_certificates.pem")
    assert str(directory / "private_key.pem") in refusal({"CA_PROVIDER": "GkeWorkloadCertificate"})


def test_file_mounted_certs_ask_no_ca_and_serve_what_istiod_names(here: Path) -> None:
    found = worked_out({"FILE_MOUNTED_CERTS": "true"})
    assert (found.has_ca, found.is_mounted, found.is_workload_ours) == (False, False, False)
    assert found.certs == Files.of_directory(here / "etc/certs")


def test_somebody_elses_workload_sds_leaves_files_to_us(here: Path) -> None:
    workload_files(here)
    found = worked_out(has_workload_sds=True)
    assert (found.is_files_only, found.has_ca, found.is_mounted, found.is_workload_ours) == (True, False, False, False)
    assert found.certs == Files.of_directory(here / "etc/certs")


def test_local_mode_asks_no_ca_over_the_network(here: Path) -> None:
    found = worked_out({"POD_NAMESPACE": ""}, config_dir=str(here))
    assert (found.ca, found.local_ca, found.has_ca) == (None, None, False)
    assert found.spiffe_id == "spiffe://cluster.local/ns/default/sa/default"


def test_local_mode_with_a_ca_of_its_own(here: Path) -> None:
    found = worked_out({"SERVICE_ACCOUNT": "me", "TRUST_DOMAIN": "td"}, config_dir=str(here), ca_dir="ca")
    assert (found.ca, found.local_ca, found.has_ca, found.is_workload_ours) == (None, here / "ca", True, True)
    assert found.spiffe_id == "spiffe://td/ns/default/sa/me"


def test_the_revocation_list_can_be_switched_off() -> None:
    assert worked_out({"PILOT_ENABLE_CA_CRL": "false"}).crl is None


def test_output_is_readable_for_others_in_kubernetes_only() -> None:
    assert worked_out({"OUTPUT_CERTS": "/out"}).output_mode == 0o600
    assert worked_out({"OUTPUT_CERTS": "/out", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}).output_mode == 0o644


# Keys and time


@pytest.mark.parametrize(
    ("env", "spec"),
    [
        ({"WORKLOAD_RSA_KEY_SIZE": "4096"}, KeySpec("RSA", 4096)),
        ({"PKCS8_KEY": "true"}, KeySpec(is_pkcs8=True)),
        ({"ECC_SIGNATURE_ALGORITHM": "ECDSA"}, KeySpec("ECDSA")),
        ({"ECC_SIGNATURE_ALGORITHM": "ECDSA", "ECC_CURVE": "P384"}, KeySpec("ECDSA", curve="P384")),
        ({"ECC_SIGNATURE_ALGORITHM": "ECDSA", "ECC_CURVE": "P521"}, KeySpec("ECDSA")),
        ({"ECC_SIGNATURE_ALGORITHM": "ECDSA", "WORKLOAD_RSA_KEY_SIZE": "1"}, KeySpec("ECDSA", 1)),
        ({"ECC_CURVE": "P384"}, KeySpec("RSA", curve="P384")),
    ],
)
def test_the_kind_of_key(env: dict[str, str], spec: KeySpec) -> None:
    assert worked_out(env).key == spec


def test_kinds_of_keys_have_names() -> None:
    assert [str(KeySpec()), str(KeySpec("ECDSA", curve="P384"))] == ["RSA 2048", "ECDSA P384"]


def test_lifetime_and_grace() -> None:
    env = {
        "SECRET_TTL": "1h30m0.9s",
        "SECRET_GRACE_PERIOD_RATIO": "1",
        "SECRET_GRACE_PERIOD_RATIO_JITTER": "0",
        "FILE_DEBOUNCE_DURATION": "2s",
    }
    found = worked_out(env)
    assert found.renewal == Renewal(5400, 1.0, 0.0)
    assert found.debounce_s == 2.0


@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        ({"cryptomb": {"pollDelay": "0.01s"}}, ("cryptomb", 10_000_000, False)),
        ({"qat": {"pollDelay": "1s", "fallback": True}}, ("qat", 10**9, True)),
        ({}, None),
    ],
)
def test_the_provider_of_private_keys(provider: dict[str, Any], expected: tuple[str, int, bool] | None) -> None:
    assert worked_out(config={"privateKeyProvider": provider}).provider == expected
