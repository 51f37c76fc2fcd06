"""Local mode: what changes in the directory is live in the running Envoy, what is broken changes nothing."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.support.agents import AgentProcess
from tests.support.applications import Application, application
from tests.support.envoy_binary import envoy_binary
from tests.support.envoy_views import clusters, listeners
from tests.support.eventually import eventually
from tests.support.load import load
from tests.support.mounts import Mount
from tests.support.ports import free_ports
from tests.unit.mesh.declared import changing_application, service_entry

MakeAgent = Callable[..., AgentProcess]


@pytest.fixture
def apps() -> Iterator[tuple[Application, Application]]:
    with ExitStack() as stack:
        yield stack.enter_context(application("one")), stack.enter_context(application("two"))


def start(running: AgentProcess) -> int:
    """Without interception, as on a laptop; Envoy's pid."""
    running.write_mesh(interceptionMode="NONE")
    running.start().until_ready()
    (envoy,) = running.envoys()
    return envoy


def served(running: AgentProcess, port: int, host: str) -> str:
    return running.fetch("/", port=port, Host=host)[1]


def publish(running: AgentProcess, name: str, text: str) -> None:
    """As editors and tools do it: beside it, then renamed."""
    draft = running.config_dir / f".{name}.draft"
    draft.write_text(text)
    draft.replace(running.config_dir / name)


def test_files_come_change_and_go_without_a_restart(agent: MakeAgent, apps: tuple[Application, Application]) -> None:
    running, (port, other_port) = agent(binary=envoy_binary()), free_ports(2)
    envoy, (one, two) = start(running), apps
    publish(running, "app.yaml", service_entry("app", port=port, target=one.port))
    eventually(lambda: served(running, port, "app.example.com") == "one")
    publish(running, "app.yaml", service_entry("app", port=port, target=two.port))
    eventually(lambda: served(running, port, "app.example.com") == "two")
    (running.config_dir / "other.yml").write_text(service_entry("other", port=other_port, target=one.port))
    eventually(lambda: served(running, other_port, "other.example.com") == "one")
    assert f"outbound|{port}||app.example.com" in clusters(running)
    (running.config_dir / "app.yaml").unlink()
    eventually(lambda: f"127.0.0.1_{port}" not in listeners(running))
    eventually(lambda: f"outbound|{port}||app.example.com" not in clusters(running))
    assert served(running, other_port, "other.example.com") == "one"
    assert running.envoys() == [envoy]
    assert running.metric("istio_agent_envoy_epoch") == 0
    assert running.metric('istio_agent_config_reloads_total{result="refused"}') == 0
    assert running.stop() == 0
    assert running.left_behind() == []


def test_a_broken_file_is_refused_by_file_line_and_field(
    agent: MakeAgent, apps: tuple[Application, Application]
) -> None:
    running, (port, other_port) = agent(binary=envoy_binary()), free_ports(2)
    envoy, (one, two) = start(running), apps
    good = service_entry("app", port=port, target=one.port)
    publish(running, "app.yaml", good)
    eventually(lambda: served(running, port, "app.example.com") == "one")

    publish(running, "app.yaml", good.replace("protocol: HTTP", "protocol: HTPP"))
    line = good[: good.index("protocol:")].count("\n") + 1
    where, field = f"app.yaml:{line}", "spec.ports[0].protocol"
    eventually(lambda: where in running.fetch("/healthz/ready?verbose")[1])
    status, verbose = running.fetch("/healthz/ready?verbose")
    (note,) = [each for each in verbose.splitlines() if each.startswith("local configuration refused: ")]
    assert status == 200 and where in note and field in note and "HTPP" in note
    (logged,) = running.lines("Refused as a whole")
    assert all(each in logged for each in ("file=app.yaml", f"line={line}", f"field={field}", "HTPP"))
    assert running.metric('istio_agent_config_errors{file="app.yaml"}') == 1
    assert running.metric('istio_agent_config_reloads_total{result="refused"}') == 1
    assert served(running, port, "app.example.com") == "one"

    # Its neighbours are not held up by it, and mending it is enough.
    publish(running, "other.yaml", service_entry("other", port=other_port, target=two.port))
    eventually(lambda: served(running, other_port, "other.example.com") == "two")
    publish(running, "app.yaml", service_entry("app", port=port, target=two.port))
    eventually(lambda: served(running, port, "app.example.com") == "two")
    assert "refused" not in running.fetch("/healthz/ready?verbose")[1]
    assert "istio_agent_config_errors{" not in running.fetch("/metrics")[1]
    assert running.envoys() == [envoy]
    assert running.stop() == 0


def test_a_config_map_is_noticed_at_every_rotation(agent: MakeAgent, apps: tuple[Application, Application]) -> None:
    running, (port, other_port) = agent(binary=envoy_binary()), free_ports(2)
    mount = Mount(running.config_dir)
    other = service_entry("other", port=other_port, target=apps[0].port)
    entries = [service_entry("app", port=port, target=app.port) for app in apps]
    mount.publish(app__yaml=entries[0], other__yaml=other)
    envoy = start(running)
    eventually(lambda: served(running, port, "app.example.com") == "one")
    for rotation in range(1, 6):
        mount.publish(app__yaml=entries[rotation % 2], other__yaml=other)
        wanted = apps[rotation % 2].name
        eventually(lambda wanted=wanted: served(running, port, "app.example.com") == wanted)  # type: ignore[misc]
    mount.publish(other__yaml=other)
    eventually(lambda: f"127.0.0.1_{port}" not in listeners(running))
    mount.publish(app__yaml=entries[0], other__yaml=other)
    eventually(lambda: served(running, port, "app.example.com") == "one")
    assert served(running, other_port, "other.example.com") == "one"
    assert running.envoys() == [envoy]
    assert running.stop() == 0


def test_no_request_fails_while_the_mesh_changes(agent: MakeAgent, apps: tuple[Application, Application]) -> None:
    running, (port,) = agent(binary=envoy_binary()), free_ports(1)
    envoy, targets = start(running), [app.port for app in apps]
    publish(running, "app.yaml", changing_application(0, port, targets))
    eventually(lambda: served(running, port, "app.example.com") in ("one", "two"))
    with load(port, "app.example.com", None) as requests:
        for round_ in range(1, 13):
            before = len(running.lines("Local mesh published"))
            publish(running, "app.yaml", changing_application(round_, port, targets))
            eventually(lambda before=before: len(running.lines("Local mesh published")) > before)  # type: ignore[misc]
            requests.go_on(3)
        assert requests.is_on
    assert requests.failures == []
    assert running.envoys() == [envoy]
    assert running.stop() == 0
