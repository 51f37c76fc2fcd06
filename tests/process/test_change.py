"""Changed settings with a fake Envoy: the way of epochs, of failed heirs, and of refusals."""

from collections.abc import Callable

from tests.support.agents import AgentProcess
from tests.support.eventually import eventually
from tests.support.fakes import FakeEnvoy

MakeAgent = Callable[..., AgentProcess]


def test_a_changed_mesh_file_hands_over_to_the_next_epoch(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    running = agent().start().until_ready()
    running.write_mesh(concurrency=3)
    eventually(lambda: running.lines("has taken over"))
    first, second = fake_envoy.starts
    assert (first["epoch"], second["epoch"]) == (0, 1)
    assert second["base_id"] == first["base_id"]
    assert fake_envoy.flag(second, "--concurrency") == "3"
    assert int(fake_envoy.flag(second, "--parent-shutdown-time-s") or 0) > int(
        fake_envoy.flag(second, "--drain-time-s") or 0
    )
    assert running.is_ready()
    assert running.metric('istio_agent_envoy_restarts_total{reason="hot-restart"}') == 1
    assert running.metric("istio_agent_envoy_epoch") == 1
    assert running.stop() == 0


def test_a_rewritten_file_with_the_same_content_changes_nothing(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    running = agent().start().until_ready()
    running.write_mesh()
    running.write_mesh(concurrency=2)  # the mark that the first was looked at: changes are seen in order
    eventually(lambda: running.lines("has taken over"))
    assert [start["epoch"] for start in fake_envoy.starts] == [0, 1]
    assert running.stop() == 0


def test_a_failed_heir_is_followed_by_a_full_restart(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    fake_envoy.switch(fail_epochs=[1])
    running = agent().start().until_ready()
    running.write_mesh(concurrency=3)
    eventually(lambda: len(fake_envoy.starts) == 3)
    running.until_ready()
    assert [start["epoch"] for start in fake_envoy.starts] == [0, 1, 0]
    assert fake_envoy.starts[2]["base_id"] != fake_envoy.starts[0]["base_id"]
    assert fake_envoy.flag(fake_envoy.starts[2], "--concurrency") == "3"
    assert running.lines("hot restart failed: ") and running.lines("its last words: previous envoy process")
    assert running.metric('istio_agent_envoy_restarts_total{reason="full-restart"}') == 1
    assert running.stop() == 0


def test_a_change_that_envoy_refuses_keeps_the_old_one(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    running = agent().start().until_ready()
    fake_envoy.switch(invalid="Protobuf message has unknown fields")
    running.write_mesh(concurrency=3)
    eventually(lambda: "Protobuf message has unknown fields" in running.fetch("/healthz/ready?verbose")[1])
    assert running.is_ready()
    assert running.lines("changed settings are refused")
    assert running.metric('istio_agent_config_reloads_total{result="refused"}') == 1
    assert len(fake_envoy.starts) == 1
    fake_envoy.switch()
    running.write_mesh(concurrency=4)
    eventually(lambda: running.lines("has taken over"))
    assert "refused" not in running.fetch("/healthz/ready?verbose")[1]
    assert running.stop() == 0


def test_a_mesh_file_that_can_not_be_read_keeps_the_old_settings(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    running = agent().start().until_ready()
    running.mesh_file.write_text("defaultConfig: {drainDuration: 5}")
    eventually(lambda: "drainDuration: 5 is not a duration" in running.fetch("/healthz/ready?verbose")[1])
    assert running.is_ready() and len(fake_envoy.starts) == 1
    assert running.stop() == 0


def test_what_can_not_change_while_the_agent_runs_is_refused(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    running = agent().start().until_ready()
    running.write_mesh(statusPort=running.ports.status + 1)
    eventually(lambda: "statusPort can't change from" in running.fetch("/healthz/ready?verbose")[1])
    assert len(fake_envoy.starts) == 1
    assert running.stop() == 0


def test_what_local_mode_reads_once_can_not_change(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    running = agent().start().until_ready()
    running.write_mesh(interceptionMode="NONE")
    eventually(lambda: "interceptionMode can't change from REDIRECT" in running.fetch("/healthz/ready?verbose")[1])
    running.ports = running.ports._replace(outbound=running.ports.outbound + 1)
    running.write_mesh(interceptionMode=None)
    refusal = "proxyListenPort of the mesh file can't change while the agent runs"
    eventually(lambda: refusal in running.fetch("/healthz/ready?verbose")[1])
    assert len(fake_envoy.starts) == 1
    assert running.stop() == 0


def test_a_crash_of_the_old_epoch_during_its_drain_harms_nothing(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    fake_envoy.sequence({"crash_after": 2}, {})
    running = agent().start().until_ready()
    running.write_mesh(concurrency=3, drainDuration="60s")
    eventually(lambda: running.lines("has taken over"))
    eventually(lambda: running.lines("has left: exit code 1"))
    assert running.is_ready()
    assert [start["epoch"] for start in fake_envoy.starts] == [0, 1]
    assert running.stop() == 0


def test_a_crash_of_the_new_epoch_starts_a_new_generation(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    fake_envoy.sequence({}, {"crash_after": 0.5}, {})
    running = agent().start().until_ready()
    running.write_mesh(concurrency=3)
    eventually(lambda: len(fake_envoy.starts) == 3)
    running.until_ready()
    assert [start["epoch"] for start in fake_envoy.starts] == [0, 1, 0]
    assert len(running.envoys()) == 1, "older epochs end with the generation"
    assert running.stop() == 0


def test_a_change_waits_for_the_epoch_before_the_current_one(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    running = agent()
    running.write_mesh(drainDuration="3s")
    running.start().until_ready()
    running.write_mesh(concurrency=3)
    eventually(lambda: running.lines("has taken over"))
    running.write_mesh(concurrency=4)
    running.write_mesh(concurrency=5)
    eventually(lambda: running.lines("waits until the epoch before has drained"))
    assert len(fake_envoy.starts) == 2, "a third epoch would cut the first one's requests"
    eventually(lambda: len(fake_envoy.starts) == 3, within=15)
    assert fake_envoy.flag(fake_envoy.starts[2], "--concurrency") == "5"
    first_end = next(event["at"] for event in fake_envoy.events("exit"))
    assert first_end < fake_envoy.starts[2]["at"]
    assert running.stop() == 0


def test_fewer_worker_threads_are_warned_about(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    running = agent()
    running.write_mesh(concurrency=4)
    running.start().until_ready()
    running.write_mesh(concurrency=3)
    eventually(lambda: running.lines("has taken over"))
    assert running.lines("4 worker threads become 3: connections that wait to be accepted")
    assert running.stop() == 0


def test_a_stop_during_a_hot_restart_ends_both_epochs(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    fake_envoy.sequence({}, {"never_ready": True})
    running = agent().start().until_ready()
    running.write_mesh(concurrency=3)
    eventually(lambda: len(fake_envoy.starts) == 2)
    assert running.stop() == 0
    assert running.left_behind() == []


def test_a_stop_during_a_crash_loop_ends_at_once(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    fake_envoy.switch(exit_code=3)
    running = agent("--maxCrashes", "1000").start()
    eventually(lambda: len(fake_envoy.starts) >= 4)
    assert running.stop() == 0
