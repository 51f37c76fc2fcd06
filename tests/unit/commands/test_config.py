"""`pilot-agent config`: every setting with its source, as a table or as JSON, and nothing secret in either."""

import json
from pathlib import Path
from typing import Any

import pytest

from pilot_agent.commands import config
from pilot_agent.commands.effective import DEFAULT, Row, sections
from pilot_agent.commands.line import find, read
from pilot_agent.commands.parsing import Parsed
from pilot_agent.commands.preview import preview
from pilot_agent.commands.table import COMMANDS
from pilot_agent.errors import SettingsError
from pilot_agent.settings.environment import VARIABLES
from pilot_agent.settings.schema import PROXY_CONFIG_FIELDS
from tests.unit.commands.runner import run

SECRET = "hush-hush"


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def parsed(*args: str) -> Parsed:
    return read(find("config"), args)


def shown(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    assert config.run(parsed("-o", "json", *args)) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def setting(value: object, source: str) -> dict[str, object]:
    return {"value": value, "source": source}


def write_mesh(**fields: object) -> None:
    Path("mesh.yaml").write_text(json.dumps(fields))


def test_without_anything_all_is_default(capsys: pytest.CaptureFixture[str]) -> None:
    found = shown(capsys)
    assert list(found) == ["proxyConfig", "flags", "environment", "mesh", "node", "envoy", "warnings"]
    assert found["proxyConfig"]["drainDuration"] == setting("45s", "default")
    assert found["flags"]["role"] == setting("sidecar", "default")
    assert found["flags"]["log_target"] == setting(["stdout"], "default")
    assert {row["source"] for row in found["flags"].values()} == {"default"}
    assert found["environment"] == {}
    assert found["mesh"]["proxyListenPort"] == setting(15001, "default")
    assert found["node"]["mode"] == setting("mesh", "default")
    assert found["warnings"] == []


def test_each_layer_of_the_proxy_config_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mesh(defaultConfig={"drainDuration": "7s", "statusPort": 16020})
    monkeypatch.setenv("PROXY_CONFIG", '{"statusPort": 17020, "tracing": {"zipkin": {"address": "z:9411"}}}')
    monkeypatch.setenv("ISTIO_CPU_LIMIT", "3")
    found = shown(capsys, "--meshConfig=mesh.yaml", "--templateFile=own.j2", "--stockEnvoy=false")["proxyConfig"]
    assert found["drainDuration"] == setting("7s", "mesh file mesh.yaml")
    assert found["statusPort"] == setting(17020, "PROXY_CONFIG")
    assert found["tracing.zipkin.address"] == setting("z:9411", "PROXY_CONFIG")
    assert found["proxyBootstrapTemplatePath"] == setting("own.j2", "flag --templateFile")
    assert found["concurrency"] == setting(3, "ISTIO_CPU_LIMIT")


@pytest.fixture(autouse=True)
def own_template(in_an_empty_directory: None) -> None:
    Path("own.j2").write_text("{}")


def test_each_key_of_the_proxy_metadata_has_its_own_source(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mesh(defaultConfig={"proxyMetadata": {"A": "1", "B": "1"}})
    monkeypatch.setenv("PROXY_CONFIG", '{"proxyMetadata": {"B": "2"}}')
    found = shown(capsys, "--meshConfig=mesh.yaml")["proxyConfig"]
    assert found["proxyMetadata.A"] == setting("1", "mesh file mesh.yaml")
    assert found["proxyMetadata.B"] == setting("2", "PROXY_CONFIG")


def test_a_deep_merge_keeps_the_source_of_each_nested_field(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mesh(defaultConfig={"tracing": {"sampling": 5, "zipkin": {"address": "z:9411"}}})
    monkeypatch.setenv("PROXY_CONFIG", '{"tracing": {"sampling": 9}}')
    found = shown(capsys, "--meshConfig=mesh.yaml", "--deepMerge")["proxyConfig"]
    assert found["tracing.sampling"] == setting(9, "PROXY_CONFIG")
    assert found["tracing.zipkin.address"] == setting("z:9411", "mesh file mesh.yaml")


def test_flags_and_the_role_that_were_given_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    found = shown(capsys, "router", "--preDrainDelay=2s", "--profiling=true", "--log_as_json")["flags"]
    assert found["role"] == setting("router", "command line")
    assert found["preDrainDelay"] == setting("2s", "flag")
    assert found["profiling"] == setting(True, "flag"), "given, though it is the default"
    assert found["log_as_json"] == setting(True, "flag")
    assert found["maxCrashes"] == setting(10, "default")


def test_variables_that_are_set_are_shown_and_what_is_not_used_yet_is_marked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENVOY_STATUS_PORT", "16021")
    monkeypatch.setenv("MINIMUM_DRAIN_DURATION", "5")
    monkeypatch.setenv("CA_ADDR", "ca:15012")
    monkeypatch.setenv("DNS_FORWARD_PARALLEL", "true")
    monkeypatch.setenv("ISTIO_META_NETWORK", "n1")
    found = shown(capsys)
    assert found["environment"] == {
        "ENVOY_STATUS_PORT": setting(16021, "environment"),
        "MINIMUM_DRAIN_DURATION": setting("5s", "default, what is set can't be read"),
        "CA_ADDR": setting("ca:15012", "environment"),
        "DNS_FORWARD_PARALLEL": setting(True, "environment; not used in this version"),
        "ISTIO_META_NETWORK": setting("n1", "environment"),
    }
    assert found["warnings"] == ["MINIMUM_DRAIN_DURATION='5' is not a duration: using the default, 5s"]


def test_all_shows_every_field_and_every_variable(capsys: pytest.CaptureFixture[str]) -> None:
    found = shown(capsys, "--all")
    assert found["environment"].keys() == {variable.name for variable in VARIABLES}
    assert found["proxyConfig"].keys() == PROXY_CONFIG_FIELDS.keys()
    assert found["proxyConfig"]["meshId"] == setting(None, "default")
    for variable in VARIABLES:
        is_marked = "not used in this version" in found["environment"][variable.name]["source"]
        assert is_marked is not variable.is_used


def test_mesh_config_node_and_envoy(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write_mesh(proxyListenPort=16001, access_log_file="/dev/stdout", defaultConfig={"binaryPath": "/bin/sh"})
    monkeypatch.setenv("INSTANCE_IP", "10.1.2.3")
    monkeypatch.setenv("POD_NAME", "web")
    monkeypatch.setenv("POD_NAMESPACE", "shop")
    Path("mesh").mkdir()
    found = shown(capsys, "--meshConfig=mesh.yaml", "--configDir=mesh")
    assert found["mesh"] == {
        "proxyListenPort": setting(16001, "mesh file mesh.yaml"),
        "proxyInboundListenPort": setting(15006, "default"),
        "accessLogFile": setting("/dev/stdout", "mesh file mesh.yaml"),
    }
    assert found["node"]["mode"]["value"] == "local"
    assert found["node"]["id"]["value"] == "sidecar~10.1.2.3~web.shop~shop.svc.cluster.local"
    assert found["node"]["addresses"]["value"][0] == "10.1.2.3"
    assert found["envoy"]["binary"] == setting(str(Path("/bin/sh").resolve()), "mesh file mesh.yaml")
    assert found["envoy"]["template"] == setting("bootstrap.json.j2", "default")


def test_a_custom_file_stands_in_the_place_of_the_template(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("own.json").write_text("{}")
    monkeypatch.setenv("PROXY_CONFIG", '{"customConfigFile": "own.json"}')
    found = shown(capsys)["envoy"]
    assert found["customConfigFile"] == setting(str(Path.cwd() / "own.json"), "PROXY_CONFIG")
    assert "template" not in found


def test_strict_makes_a_failure_of_a_warning_after_everything_is_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config.run(parsed("--strict")) == 0
    capsys.readouterr()
    monkeypatch.setenv("PROXY_CONFIG", '{"drainDurations": "5s"}')
    with pytest.raises(SettingsError, match="1 warning, which --strict takes for errors"):
        config.run(parsed("--strict"))
    assert capsys.readouterr().out.endswith(
        "WARNINGS\n  PROXY_CONFIG: unknown ProxyConfig field 'drainDurations' is ignored; did you mean drainDuration?\n"
    )


def test_the_table_is_aligned_and_says_where_nothing_is(capsys: pytest.CaptureFixture[str]) -> None:
    config.run(parsed())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "PROXY CONFIG"
    assert lines[1].split() == ["FIELD", "VALUE", "SOURCE"]
    column = lines[1].index("SOURCE")
    (drain,) = [line for line in lines if line.startswith("  drainDuration ")]
    assert drain[lines[1].index("VALUE") :].startswith("45s ") and drain[column:] == "default"
    at = lines.index("ENVIRONMENT")
    assert lines[at + 1 : at + 3] == ["  nothing is set", ""]
    assert lines[-2:] == ["WARNINGS", "  none"]


@pytest.mark.parametrize("width", [20, 40, 80])
def test_lines_are_cut_at_a_terminals_width_only(width: int) -> None:
    found = {"proxyConfig": [Row("discoveryAddress", "x" * 200, DEFAULT)]}
    assert max(map(len, config.as_table(found, (), width))) <= width
    assert any("x" * 200 in line and line.endswith(DEFAULT) for line in config.as_table(found, (), None))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        ("", '""'),
        ("a", "a"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\udcff", "\\udcff"),
        (True, "true"),
        (5, "5"),
        (["a", "b"], '["a", "b"]'),
        ({}, "{}"),
    ],
)
def test_values_are_one_line_and_distinguishable(value: object, text: str) -> None:
    assert config.text_of(value) == text


SECRETS = {
    "PROXY_CONFIG": json.dumps(
        {
            "tracing": {"lightstep": {"address": "a:1", "accessToken": SECRET}},
            "proxyMetadata": {"MY_TOKEN": SECRET, "ISTIO_META_PASSWORD": SECRET},
        }
    ),
    "CA_HEADER_Authorization": f"Bearer {SECRET}",
    "XDS_HEADER_X": SECRET,
    "ISTIO_META_API_KEY": SECRET,
    "ISTIO_METAJSON_MORE": json.dumps({"password": SECRET}),
    "PKCS8_KEY": f"-----BEGIN PRIVATE KEY-----{SECRET}",
}


@pytest.mark.parametrize("output", ["table", "json"])
@pytest.mark.parametrize("more", [(), ("--all",)])
def test_secrets_are_never_printed(output: str, more: tuple[str, ...]) -> None:
    ended = run("config", "-o", output, *more, env=SECRETS)
    assert ended.code == 0, ended.err
    assert SECRET not in ended.out + ended.err
    assert ended.out.count("(hidden)") >= 5


def test_a_settings_error_is_the_one_line_of_proxy() -> None:
    ended = run("config", env={"PROXY_CONFIG": '{"statusPort": 0}'})
    assert (ended.code, ended.out) == (255, "")
    assert ended.err.startswith("Error: failed to get proxy config: statusPort (from PROXY_CONFIG)")
    assert ended.err.count("\n") == 1


def test_a_role_there_is_not_is_refused_here_too() -> None:
    assert run("config", "sidecat").err.startswith("Error: invalid proxy Type: sidecat")


def test_every_flag_of_proxy_is_a_row() -> None:
    given = parsed()
    rows = sections(given, preview(given))["flags"]
    proxy = next(command for command in COMMANDS if command.name == "proxy")
    assert {row.name for row in rows} == {flag.name for flag in proxy.all_flags()} | {"role"}
