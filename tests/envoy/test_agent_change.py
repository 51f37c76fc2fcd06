"""A bootstrap of the user's own that the real Envoy refuses: at the start, and while it runs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pilot_agent.bootstrap.render import templates_directory
from tests.support.agents import AgentProcess
from tests.support.envoy_binary import envoy_binary
from tests.support.envoy_views import epoch
from tests.support.eventually import eventually
from tests.support.mounts import Mount

MakeAgent = Callable[..., AgentProcess]

GOOD = (templates_directory() / "bootstrap.json.j2").read_text()
LAST_FIELD = '"deferred_stat_options"'
# Valid JSON each; and what Envoy 1.40 says of it.
REFUSED = {
    "constraint": ('"stats_flush_interval": "0.0001s"', "value must be inside range [1ms, 5m0s)"),
    "type": ('"stats_flush_interval": "often"', "stats_flush_interval"),
    "unknown extension": ('"default_regex_engine": {"name": "no.such.engine"}', "TypedExtensionConfigValidationError"),
}


def with_field(field: str) -> str:
    assert GOOD.count(LAST_FIELD) == 1
    return GOOD.replace(LAST_FIELD, f"{field}, {LAST_FIELD}")


def replace(path: Path, text: str) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(path)


def test_a_template_edited_to_something_envoy_refuses(agent: MakeAgent, tmp_path: Path) -> None:
    template = tmp_path / "own.json.j2"
    template.write_text(GOOD)
    running = agent(binary=envoy_binary())
    running.write_mesh(proxyBootstrapTemplatePath=str(template))
    running.start().until_ready()
    first = running.envoys()
    bad, words = REFUSED["constraint"]
    replace(template, with_field(bad))
    eventually(lambda: words in running.fetch("/healthz/ready?verbose")[1])
    status, verbose = running.fetch("/healthz/ready?verbose")
    assert status == 200 and "changed settings refused: Envoy refuses the changed bootstrap (exit code 1): " in verbose
    assert [line for line in running.lines("changed settings are refused") if words in line]
    assert running.metric('istio_agent_config_reloads_total{result="refused"}') == 1
    assert running.fetch("/healthz/ready", port=running.ports.ready)[0] == 200
    assert running.envoys() == first

    replace(template, GOOD)  # back to what runs: nothing to restart for
    eventually(lambda: "refused" not in running.fetch("/healthz/ready?verbose")[1])
    assert running.lines("settings are good again")
    assert running.envoys() == first

    replace(template, with_field('"stats_flush_interval": "7s"'))
    eventually(lambda: running.lines("has taken over"), within=15)
    assert epoch(running) == 1
    assert running.metric('istio_agent_config_reloads_total{result="refused"}') == 1
    assert running.stop() == 0
    assert running.left_behind() == []


@pytest.mark.parametrize("fault", REFUSED)
def test_a_template_that_envoy_refuses_at_the_start(agent: MakeAgent, tmp_path: Path, fault: str) -> None:
    bad, words = REFUSED[fault]
    template = tmp_path / "own.json.j2"
    template.write_text(with_field(bad))
    running = agent(binary=envoy_binary())
    running.write_mesh(proxyBootstrapTemplatePath=str(template))
    assert running.start().wait() == 255
    (line,) = running.errors.splitlines()
    assert line.startswith("Error: Envoy refuses the bootstrap (exit code 1): ") and words in line
    assert line.removeprefix("Error: ") in running.log
    assert running.left_behind() == []


def test_a_mesh_file_in_a_config_map_is_noticed_at_every_rotation(agent: MakeAgent) -> None:
    running = agent("--meshConfig", "config/mesh", binary=envoy_binary())
    mount = Mount(running.directory / "config")

    def rotate(**proxy_config: object) -> None:
        running.write_mesh(**proxy_config)
        mount.publish(mesh=running.mesh_file.read_text())

    rotate()
    running.start().until_ready()
    for number in (1, 2, 3):
        rotate(runtimeValues={"some.key": str(number)})
        eventually(lambda number=number: len(running.lines("has taken over")) == number, within=15)  # type: ignore[misc]
    assert epoch(running) == 3
    assert running.stop() == 0
