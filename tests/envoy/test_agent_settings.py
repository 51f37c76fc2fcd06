"""Settings that reach the real Envoy: an override merged or refused, a stats sink, parts it can't load left out."""

import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.agents import AgentProcess
from tests.support.envoy_binary import envoy_binary
from tests.support.envoy_views import epoch, view
from tests.support.eventually import eventually

MakeAgent = Callable[..., AgentProcess]


def bootstrap(running: AgentProcess) -> Any:
    """As Envoy uses it, overrides merged in."""
    dump = json.loads(view(running, "/config_dump"))
    return next(each["bootstrap"] for each in dump["configs"] if each["@type"].endswith("BootstrapConfigDump"))


def answers(running: AgentProcess) -> bool:
    try:
        return bool(view(running, "/server_info"))
    except OSError:
        return False


def replace(path: Path, text: str) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(path)


def test_an_override_is_merged_by_envoy_and_its_change_hands_over(agent: MakeAgent, tmp_path: Path) -> None:
    override = tmp_path / "override.yaml"
    override.write_text("stats_flush_interval: 7s\nnode:\n  locality:\n    zone: $(HOST_IP)\n")
    env = {"ISTIO_BOOTSTRAP_OVERRIDE": str(override), "HOST_IP": "fd00::9"}
    running = agent(binary=envoy_binary(), env=env).start().until_ready()
    found = bootstrap(running)
    assert found["stats_flush_interval"] == "7s"
    assert found["node"]["locality"]["zone"] == "fd00::9"
    assert len(found["static_resources"]["listeners"]) == 2

    replace(override, "stats_flush_interval: 0.00001s\n")
    eventually(lambda: "changed settings refused" in running.fetch("/healthz/ready?verbose")[1])
    assert "value must be inside range [1ms, 5m0s)" in running.fetch("/healthz/ready?verbose")[1]
    assert bootstrap(running)["stats_flush_interval"] == "7s"

    replace(override, "stats_flush_interval: 9s\n")
    eventually(lambda: running.lines("has taken over"), within=15)
    assert epoch(running) == 1
    assert bootstrap(running)["stats_flush_interval"] == "9s"
    assert running.stop() == 0
    assert running.left_behind() == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"admin": 5}', "admin"),
        ('{"stats_flush_interval": "often"}', "stats_flush_interval"),
        (
            '{"static_resources": {"clusters": [{"connect_timeout": "-1s"}]}}',
            "Invalid duration: Expected positive duration",
        ),
    ],
)
def test_an_override_that_envoy_rejects_is_refused_before_the_start(
    agent: MakeAgent, tmp_path: Path, text: str, words: str
) -> None:
    override = tmp_path / "override.json"
    override.write_text(text)
    running = agent(binary=envoy_binary(), env={"ISTIO_BOOTSTRAP_OVERRIDE": str(override)}).start()
    assert running.wait() == 255
    assert len(running.errors.splitlines()) == 1
    assert "Envoy refuses the bootstrap" in running.errors
    assert words in running.errors
    assert running.left_behind() == []


def test_statsd_by_name_gets_envoys_stats(agent: MakeAgent) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(15)
        running = agent(binary=envoy_binary())
        annotations = running.directory / "etc/istio/pod/annotations"
        annotations.parent.mkdir(parents=True)
        annotations.write_text('sidecar.istio.io/statsFlushInterval="100ms"\n')
        running.write_mesh(statsdUdpAddress=f"localhost:{statsd.getsockname()[1]}")
        running.start().until_ready()
        assert statsd.recv(65536).startswith(b"envoy.")
        assert running.stop() == 0


def test_a_stock_envoy_starts_without_what_only_istios_can_load(agent: MakeAgent) -> None:
    running = agent(binary=envoy_binary(), env={"ISTIO_META_ENABLE_HBONE": "true"})
    running.is_local = False
    running.write_mesh(
        terminationDrainDuration="0s", tracing={"lightstep": {"address": "127.0.0.1:1", "accessToken": "t0ken"}}
    )
    running.start()
    eventually(lambda: answers(running), within=15)  # it waits for istiod, but it runs
    names = [each["name"] for each in bootstrap(running)["bootstrap_extensions"]]
    assert names == ["envoy.bootstrap.internal_listener"]
    assert bootstrap(running)["node"]["metadata"]["METADATA_DISCOVERY"] == "true"
    warnings = running.lines("is left out: this Envoy is not Istio's build")
    assert ["metadata_discovery" in warnings[0], "lightstep" in warnings[1]] == [True, True]
    assert len(warnings) == 2
    assert running.stop() == 0
    assert running.left_behind() == []


def test_without_that_switch_a_stock_envoy_says_what_it_can_not_load(agent: MakeAgent) -> None:
    running = agent("--stockEnvoy=false", binary=envoy_binary(), env={"ISTIO_META_ENABLE_HBONE": "true"})
    running.is_local = False
    running.start()
    assert running.wait() == 255
    assert "istio.workload.BootstrapExtension" in running.errors
    assert running.left_behind() == []


# What `envoy --mode validate` does not see


def annotate(running: AgentProcess, regexp: str) -> None:
    annotations = running.directory / "etc/istio/pod/annotations"
    annotations.parent.mkdir(parents=True, exist_ok=True)
    replace(annotations, f'sidecar.istio.io/statsInclusionRegexps="{regexp}"\n')


def is_refused(running: AgentProcess) -> bool:
    return "changed settings refused" in running.fetch("/healthz/ready?verbose")[1]


def test_a_broken_regular_expression_is_refused_before_an_heir_is_started(agent: MakeAgent) -> None:
    running = agent(binary=envoy_binary())
    annotate(running, "good.*")
    running.start().until_ready()
    before = running.envoys()
    annotate(running, "bad(")
    eventually(lambda: is_refused(running))
    assert "refuses the changed bootstrap (exit code 1): error `missing ): bad(`" in running.log
    assert running.is_ready()
    assert running.envoys() == before
    annotate(running, "better.*")
    eventually(lambda: running.lines("has taken over"), within=15)
    assert epoch(running) == 1
    assert "better.*" in json.dumps(bootstrap(running))
    assert running.stop() == 0
    assert running.left_behind() == []


def stats_override(regexp: str) -> str:
    return json.dumps(
        {"stats_config": {"stats_matcher": {"inclusion_list": {"patterns": [{"safe_regex": {"regex": regexp}}]}}}}
    )


def test_what_only_the_heir_refuses_leaves_the_old_envoy_alone(agent: MakeAgent, tmp_path: Path) -> None:
    override = tmp_path / "override.json"
    override.write_text(stats_override("good.*"))
    running = agent(binary=envoy_binary(), env={"ISTIO_BOOTSTRAP_OVERRIDE": str(override)}).start().until_ready()
    before = running.envoys()
    replace(override, stats_override("bad("))  # merged in by Envoy itself, where no check looks
    eventually(lambda: is_refused(running))
    assert "refuses the changed bootstrap at its start: error `missing ): bad(`" in running.log
    assert running.is_ready()
    assert running.envoys() == before
    assert running.metric('istio_agent_config_reloads_total{result="refused"}') == 1

    running.signal(signal.SIGHUP)  # look at all of it again: it is known to be bad
    eventually(lambda: running.lines("SIGHUP: looking at all settings again"))
    replace(override, stats_override("better.*"))
    eventually(lambda: running.envoys() not in ([], before), within=15)
    running.until_ready()
    assert len(running.lines("hot restart failed")) == 1
    assert "better.*" in json.dumps(bootstrap(running))
    assert epoch(running) == 0, "the failed heir left the shared memory unusable: a new generation"
    replace(override, stats_override("best.*"))
    eventually(lambda: running.lines("has taken over"), within=15)
    assert epoch(running) == 1
    assert running.stop() == 0
    assert running.left_behind() == []


@pytest.mark.parametrize("where", ["annotation", "override"])
def test_a_broken_regular_expression_at_the_start(agent: MakeAgent, tmp_path: Path, where: str) -> None:
    override = tmp_path / "override.json"
    running = agent(
        binary=envoy_binary(), env={"ISTIO_BOOTSTRAP_OVERRIDE": str(override)} if where == "override" else {}
    )
    if where == "override":
        override.write_text(stats_override("bad("))
    else:
        annotate(running, "bad(")
    running.start()
    assert running.wait() == 255
    assert "error `missing ): bad(`" in running.errors
    assert "Envoy refuses the bootstrap" in running.errors
    assert len(running.errors.splitlines()) == 1
    assert running.left_behind() == []
