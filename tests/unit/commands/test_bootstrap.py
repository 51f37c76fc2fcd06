"""`pilot-agent bootstrap`: what it prints, that it touches nothing, and how it asks Envoy to check."""

import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilot_agent.commands.main import _run as run
from pilot_agent.errors import EnvoyRefused, SettingsError, UsageError

STAND_IN = """#!/bin/sh
# Stands where Envoy would: keeps the document it is to validate, and refuses it where a file of that name says why.
cd "$(dirname "$0")"
case "$*" in
  --version) printf '\\n%s  version: abc/1.40.0/Clean/RELEASE/BoringSSL\\n\\n' "$0" ;;
  *"--mode validate"*)
    echo "$@" > arguments
    cp "$2" document
    cp -r "$(dirname "$2")" folder
    if [ -f refusal ]; then cat refusal >&2; exit 1; fi ;;
esac
"""


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command runs: an empty directory, with a binary beside it that PROXY_CONFIG names."""
    working, binary = tmp_path / "working", tmp_path / "bin" / "envoy"
    working.mkdir()
    binary.parent.mkdir()
    binary.write_text(STAND_IN)
    binary.chmod(0o755)
    monkeypatch.chdir(working)
    monkeypatch.setenv("INSTANCE_IP", "10.0.0.1")
    configure(monkeypatch, binary)
    return tmp_path


def configure(monkeypatch: pytest.MonkeyPatch, binary: Path, **fields: object) -> None:
    monkeypatch.setenv("PROXY_CONFIG", json.dumps({"binaryPath": str(binary), **fields}))


def left_in(directory: Path) -> list[Path]:
    return list((directory / "working").rglob("*"))


def printed(capfd: pytest.CaptureFixture[str], *args: str) -> tuple[str, str]:
    assert run(["bootstrap", *args]) == 0
    sys.stdout.flush()
    out, err = capfd.readouterr()
    return out, err


def test_it_prints_the_document_as_json_for_people(capfd: pytest.CaptureFixture[str], directory: Path) -> None:
    out, err = printed(capfd, "router", "--stockEnvoy", "--domain", "shop.local")
    document = json.loads(out)
    assert document["node"]["id"] == "router~10.0.0.1~.~shop.local"
    assert out == json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    assert err == ""
    assert left_in(directory) == []


def test_yaml_is_the_same_document_in_the_same_order(capfd: pytest.CaptureFixture[str]) -> None:
    as_json = json.loads(printed(capfd)[0])
    as_yaml = yaml.safe_load(printed(capfd, "-o", "yaml")[0])
    assert as_yaml == as_json
    assert list(as_yaml) == list(as_json)


def test_ports_that_are_taken_do_not_matter(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        configure_port = json.dumps({"proxyAdminPort": port, "statusPort": port})
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PROXY_CONFIG", configure_port)
            assert json.loads(printed(capfd)[0])["admin"]["address"]["socket_address"]["port_value"] == port


def test_warnings_go_to_standard_error_one_a_line(
    capfd: pytest.CaptureFixture[str], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(monkeypatch, directory / "bin/envoy", drainDuratio="5s", statNameLength=100)
    out, err = printed(capfd)
    assert json.loads(out)
    assert all(line.startswith("Warning: ") for line in err.splitlines())
    assert "'drainDuratio'" in err and "drainDuration" in err and "statNameLength" in err


def test_a_custom_file_is_shown_as_it_is(
    capfd: pytest.CaptureFixture[str], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    custom = directory / "custom.yaml"
    custom.write_text("# mine\nnode: {id: x}\n")
    configure(monkeypatch, directory / "bin/envoy", customConfigFile=str(custom))
    assert printed(capfd)[0] == printed(capfd, "-o", "yaml")[0] == "# mine\nnode: {id: x}\n"


def test_no_envoy_is_needed_to_print(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, Path("/nowhere/envoy"))
    assert json.loads(printed(capfd)[0])["node"]["cluster"] == "istio-proxy"
    with pytest.raises(SettingsError, match="/nowhere/envoy is not there"):
        run(["bootstrap", "--check"])


def test_a_check_names_the_binary_and_its_version(capfd: pytest.CaptureFixture[str], directory: Path) -> None:
    out, err = printed(capfd, "--check")
    binary = directory / "bin/envoy"
    assert (out, err) == (f"bootstrap is valid ({binary}, version: abc/1.40.0/Clean/RELEASE/BoringSSL)\n", "")
    assert left_in(directory) == []


def test_what_is_checked_is_what_is_printed_from_a_file_that_is_gone_afterwards(
    capfd: pytest.CaptureFixture[str], directory: Path
) -> None:
    document: Any = json.loads(printed(capfd)[0])
    printed(capfd, "--check")
    assert json.loads((directory / "bin/document").read_text()) == document
    arguments = (directory / "bin/arguments").read_text().split()
    config_file = Path(arguments[arguments.index("-c") + 1])
    assert config_file.name == "envoy-rev.json"
    assert not config_file.parent.exists()


def test_files_that_proxy_would_write_are_there_for_the_check(
    capfd: pytest.CaptureFixture[str], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracing = {"lightstep": {"address": "lightstep:80", "accessToken": "the-secret"}}
    configure(monkeypatch, directory / "bin/envoy", tracing=tracing)
    out, err = printed(capfd, "--check", "--stockEnvoy=false", "--configDir", "mesh")
    folder, document = directory / "bin/folder", (directory / "bin/document").read_text()
    assert (folder / "lightstep_access_token.txt").read_text() == "the-secret"
    assert (folder / "xds/lds/lds.json").exists() and (folder / "xds/cds/cds.json").exists()
    assert f"{directory}/working/etc" not in document
    assert "the-secret" not in out + err
    assert left_in(directory) == []


def test_a_refusal_is_in_envoys_own_words(directory: Path) -> None:
    (directory / "bin/refusal").write_text("2026-01-01T00:00:00.0Z\tcritical\tx\terror initializing: no field 'admn'\n")
    with pytest.raises(EnvoyRefused, match=r"^Envoy refuses the bootstrap \(exit code 1\): .*no field 'admn'") as error:
        run(["bootstrap", "--check"])
    assert error.value.exit_code == 255


def test_a_custom_file_is_checked_where_it_lies(
    capfd: pytest.CaptureFixture[str], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    custom = directory / "custom.json"
    custom.write_text("{}")
    configure(monkeypatch, directory / "bin/envoy", customConfigFile=str(custom))
    printed(capfd, "--check")
    assert (directory / "bin/arguments").read_text().split()[:2] == ["-c", str(custom)]


def test_an_envoy_that_is_no_envoy_is_named(capfd: pytest.CaptureFixture[str], directory: Path) -> None:
    (directory / "bin/envoy").write_text("#!/bin/sh\nexit 0\n")
    assert printed(capfd, "--check")[0] == f"bootstrap is valid ({directory}/bin/envoy, unknown version)\n"
    (directory / "bin/envoy").write_text("not a program")
    with pytest.raises(SettingsError, match="can't be executed"):
        run(["bootstrap", "--check"])


@pytest.mark.parametrize("args", [["--nosuch"], ["gateway"], ["-oxml"]])
def test_what_it_does_not_take_is_an_error(args: list[str]) -> None:
    with pytest.raises(UsageError):
        run(["bootstrap", *args])
