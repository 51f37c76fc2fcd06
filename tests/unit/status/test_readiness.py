from pilot_agent.status.readiness import Readiness, timestamp
from tests.support.clocks import ManualClock
from tests.support.recorded_log import RecordedLog
from tests.unit.status.served import Switch


def made(*gates: Switch, notes: tuple[str, ...] = ()) -> tuple[Readiness, RecordedLog, ManualClock]:
    log, clock = RecordedLog(), ManualClock()
    return Readiness(gates, log.scope, clock, lambda: notes), log, clock


def test_the_first_closed_gate_gives_the_reason() -> None:
    config, envoy = Switch("config", "no listeners yet"), Switch("envoy", "starting")
    readiness, _, _ = made(Switch("first"), config, envoy)
    assert readiness.reason() == "config: no listeners yet"
    config.text = None
    assert readiness.reason() == "envoy: starting"
    envoy.text = None
    assert readiness.reason() is None


def test_each_change_is_logged_once() -> None:
    gate = Switch("envoy", "starting")
    readiness, log, _ = made(gate)
    for _ in range(3):
        readiness.reason()
    gate.text = None
    for _ in range(3):
        readiness.reason()
    gate.text = "exited with code 1"
    readiness.reason()
    assert log.lines == ["warn not ready: envoy: starting", "info ready", "warn not ready: envoy: exited with code 1"]


def test_the_first_ready_is_logged_too() -> None:
    readiness, log, _ = made(Switch())
    readiness.reason()
    assert log.lines == ["info ready"]


def test_a_change_is_logged_without_a_probe() -> None:
    gate = Switch()
    readiness, log, _ = made(gate)
    readiness.note_change()
    gate.text = "gone"
    readiness.note_change()
    assert log.lines == ["info ready", "warn not ready: envoy: gone"]


def test_verbose_names_every_gate_since_when_and_the_notes() -> None:
    envoy, late = Switch("envoy", "starting"), Switch("late", "not yet")
    readiness, _, clock = made(Switch("config"), envoy, late, notes=("note: a.yaml is refused",))
    readiness.note_change()
    clock.now += 3.2
    assert readiness.verbose() == (
        "[+]config ok (since 3.2s)\n[-]envoy: starting (since 3.2s)\n[-]late: not yet (since 3.2s)\n"
        "note: a.yaml is refused\n"
    )
    envoy.text = None
    readiness.note_change()
    clock.now += 1
    assert [(gate.name, gate.is_open, gate.since) for gate in readiness.report()][1] == ("envoy", True, 1.0)


def test_a_new_reason_does_not_restart_the_time() -> None:
    gate = Switch("envoy", "starting")
    readiness, _, clock = made(gate)
    readiness.note_change()
    clock.now += 2
    gate.text = "still starting"
    readiness.note_change()
    clock.now += 2
    assert readiness.report()[0].since == 4.0


def test_a_gate_that_raises_is_closed() -> None:
    class Broken(Switch):
        def reason(self) -> str | None:
            raise RuntimeError("no")

    readiness, log, _ = made(Broken())
    assert readiness.reason() == "envoy: can't be told: RuntimeError('no')"
    assert len(log.lines) == 1


def test_a_time_is_rfc_3339_to_the_millisecond() -> None:
    assert timestamp(0) == "1970-01-01T00:00:00.000Z"
    assert timestamp(1_764_045_580.0004) == "2025-11-25T04:39:40.000Z"
    assert timestamp(1_764_045_580.9996) == "2025-11-25T04:39:41.000Z", "rounded as one number"


def test_the_wall_clock_may_jump_and_since_stays() -> None:
    class Jumping(ManualClock):
        jump = 0.0

        def wall(self) -> float:
            return self.now + self.jump

    clock = Jumping()
    readiness = Readiness([Switch()], RecordedLog().scope, clock)
    first = readiness.report()[0]
    clock.jump = 3600.0
    clock.now += 5
    assert readiness.report() == [first._replace(since=5.0)]
