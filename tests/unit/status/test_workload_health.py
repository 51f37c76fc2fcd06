import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.errors import SettingsError
from pilot_agent.status import workload_health
from pilot_agent.status.workload_health import HealthReport, Own, Surroundings, WorkloadHealth
from pilot_agent.status.workload_probe import (
    ExecCheck,
    GrpcCheck,
    HttpCheck,
    TcpCheck,
    WorkloadProbe,
    parse_workload_probe,
)
from pilot_agent.supervise.reaper import Reaper
from tests.support.certificates import self_signed_server
from tests.support.clocks import ManualClock
from tests.support.eventually_async import eventually_async
from tests.support.health_server import health_server
from tests.support.ports import free_port
from tests.support.probed import answering, http, listening
from tests.support.recorded_log import RecordedLog
from tests.unit.status.served import Switch

HTTP = {"httpGet": {"port": 80}}


@dataclass
class Told:
    """Who is told: keeps every report."""

    reports: list[tuple[bool, str]] = field(default_factory=list)

    def report(self, healthy: bool, message: str) -> None:
        self.reports.append((healthy, message))


@dataclass
class Script:
    """A clock whose time passes in pauses only; before each one `steps` are taken, and the run ends with the last."""

    steps: list[Callable[[], object]]
    clock: ManualClock = field(default_factory=ManualClock)
    pauses: list[float] = field(default_factory=list)

    async def pause(self, seconds: float) -> None:
        if not self.steps:
            raise asyncio.CancelledError
        self.steps.pop(0)()
        self.pauses.append(seconds)
        self.clock.advance(seconds)
        await asyncio.sleep(0)


def nothing() -> None:
    pass


def unowned(_pid: int, _collect: Callable[[], bool]) -> None:
    raise AssertionError("no child was to be started")


@dataclass
class Checked:
    """A workload health whose checks give what was written down: None healthy, a text not."""

    told: Told
    script: Script
    health: WorkloadHealth
    log: RecordedLog


def checked(results: list[str | None], gate: Switch | None = None, **numbers: int) -> Checked:
    probe = parse_workload_probe({**HTTP, **numbers})
    script, told, log = Script([nothing] * len(results)), Told(), RecordedLog()
    around = Surroundings("127.0.0.1", gate, unowned, script.clock, log.scope, script.pause)
    health = WorkloadHealth(probe, told, around)
    left = list(results)

    async def check() -> str | None:
        return left.pop(0)

    health._check = check  # type: ignore[method-assign]
    return Checked(told, script, health, log)


def run(health: WorkloadHealth) -> None:
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(health.run())


BAD, WORSE = "connection refused", "HTTP status 503"


@pytest.mark.parametrize(
    ("results", "numbers", "reports"),
    [
        ([None, None, None], {}, [(True, "")]),
        ([BAD, BAD, BAD], {}, [(False, BAD)]),
        ([None, BAD, None], {}, [(True, ""), (False, BAD), (True, "")]),
        ([BAD, WORSE, BAD], {}, [(False, BAD), (False, WORSE), (False, BAD)]),
        ([None, BAD, BAD, None], {"failureThreshold": 3}, [(True, "")]),
        ([None, BAD, BAD, BAD], {"failureThreshold": 3}, [(True, ""), (False, BAD)]),
        ([None, BAD, None, BAD, BAD], {"failureThreshold": 2}, [(True, ""), (False, BAD)]),
        ([None, None, None], {"successThreshold": 3}, [(True, "")]),
        ([None, None, BAD, None, None], {"successThreshold": 3}, [(False, BAD)]),
        ([BAD, None, None, BAD], {"successThreshold": 2}, [(False, BAD), (True, ""), (False, BAD)]),
        ([BAD, WORSE, WORSE], {"failureThreshold": 2}, [(False, WORSE)]),
    ],
)
def test_a_change_is_reported_when_its_threshold_is_reached(
    results: list[str | None], numbers: dict[str, int], reports: list[tuple[bool, str]]
) -> None:
    found = checked(results, None, **numbers)
    run(found.health)
    assert found.told.reports == reports
    assert found.health.latest == HealthReport(*reports[-1])
    assert len(found.log.lines) == len(reports)


@given(st.lists(st.sampled_from([None, BAD, WORSE]), min_size=1), st.integers(1, 4), st.integers(1, 4))
def test_no_report_repeats_the_one_before(results: list[str | None], successes: int, failures: int) -> None:
    found = checked(results, successThreshold=successes, failureThreshold=failures)
    run(found.health)
    reports = found.told.reports
    assert all(one != other for one, other in pairwise(reports))
    assert all(healthy is (message == "") for healthy, message in reports)


def test_rounds_come_with_the_period_after_the_initial_delay() -> None:
    found = checked([None, None, None], periodSeconds=7, initialDelaySeconds=30)
    run(found.health)
    assert found.script.pauses == [30, 7, 7]


def test_a_slow_check_delays_the_next_and_is_not_made_up_for() -> None:
    found = checked([None] * 4, periodSeconds=10)
    durations = [0.0, 25.0, 0.0, 4.0]
    plain = found.health._check

    async def slow() -> str | None:
        found.script.clock.advance(durations.pop(0))
        return await plain()

    found.health._check = slow  # type: ignore[method-assign]
    run(found.health)
    assert found.script.pauses == [0, 10, 0, 10]


def test_nothing_is_reported_before_envoy_serves() -> None:
    gate = Switch("envoy", "starting: not yet")
    found = checked([None], gate)

    def open_gate() -> None:
        gate.text = None

    found.script.steps = [nothing, nothing, nothing, open_gate]
    run(found.health)
    assert found.told.reports == [(True, "")]
    assert found.script.pauses == [0, 0.5, 0.5, 0.5]


def test_an_envoy_that_fails_later_is_the_reason() -> None:
    async def main() -> None:
        gate, told, log = Switch("envoy", None), Told(), RecordedLog()
        async with answering(http(200)) as app:

            def close_gate() -> None:
                gate.text = "restarting: exit code 1"

            script = Script([nothing, close_gate, nothing])
            around = Surroundings("127.0.0.1", gate, unowned, script.clock, log.scope, script.pause)
            health = WorkloadHealth(parse_workload_probe({"httpGet": {"port": app.port}}), told, around)
            with pytest.raises(asyncio.CancelledError):
                await health.run()
            assert told.reports == [(True, ""), (False, "envoy: restarting: exit code 1")]
            assert len(app.heads) == 1, "the workload is not asked while Envoy is down"

    asyncio.run(main())


@pytest.mark.parametrize("stage", [{"initialDelaySeconds": 3600}, {"periodSeconds": 3600}])
def test_delays_end_with_the_agent(stage: dict[str, int]) -> None:
    async def main() -> None:
        told = Told()
        around = Surroundings("127.0.0.1", None, unowned, ManualClock(), RecordedLog().scope)
        probe = parse_workload_probe({"tcpSocket": {"port": free_port()}, **stage})
        running = asyncio.create_task(WorkloadHealth(probe, told, around).run())
        await (eventually_async(lambda: told.reports) if "periodSeconds" in stage else asyncio.sleep(0))
        running.cancel()
        assert isinstance((await asyncio.gather(running, return_exceptions=True))[0], asyncio.CancelledError)

    asyncio.run(main())


async def health_of(message: Mapping[str, object], host: str = "127.0.0.1", own: Own = unowned) -> str | None:
    """What one real check says."""
    around = Surroundings(host, None, own, ManualClock(), RecordedLog().scope)
    return await WorkloadHealth(parse_workload_probe({"timeoutSeconds": 20, **message}), Told(), around)._check()


@pytest.mark.parametrize(
    ("status", "said"),
    [(200, None), (204, None), (304, None), (399, None), (400, "HTTP status 400"), (503, "HTTP status 503")],
)
def test_http_is_healthy_from_200_to_399(status: int, said: str | None) -> None:
    async def main() -> None:
        async with answering(http(status)) as app:
            assert await health_of({"httpGet": {"port": app.port, "path": "/up?x=1"}}) == said
            assert app.first_lines == ["GET /up?x=1 HTTP/1.1"]
            host = f"Host: 127.0.0.1:{app.port}"
            assert app.headers == [host, "User-Agent: istio-probe/1.0", "Connection: close"]
            assert app.peers == ["127.0.0.6"]

    asyncio.run(main())


def test_http_takes_headers_and_host_from_the_configuration() -> None:
    async def main() -> None:
        given = [("user-agent", "mine"), ("Host", "shop.example"), ("X-A", "1"), ("X-A", "2")]
        headers = [{"name": name, "value": value} for name, value in given]
        async with answering(http(200)) as app:
            action = {"port": app.port, "host": "127.0.0.1", "httpHeaders": headers}
            assert await health_of({"httpGet": action}, host="192.0.2.1") is None
            assert app.headers == ["Host: shop.example", "user-agent: mine", "X-A: 1", "X-A: 2", "Connection: close"]

    asyncio.run(main())


def test_https_is_healthy_with_any_certificate(tmp_path: Path) -> None:
    async def main() -> None:
        async with answering(http(200), self_signed_server(tmp_path, "h2", "http/1.1")) as app:
            for scheme in ("HTTPS", "https"):
                assert await health_of({"httpGet": {"port": app.port, "scheme": scheme}}) is None
            assert app.first_lines == ["GET / HTTP/1.1"] * 2

    asyncio.run(main())


def test_redirects_lead_anywhere_and_take_no_credentials_along() -> None:
    async def main() -> None:
        async with answering(http(500)) as there:
            away = http(302, b"", f"Location: http://localhost:{there.port}/there")
            async with answering(away) as app:
                headers = [{"name": "Authorization", "value": "Bearer x"}, {"name": "X-A", "value": "1"}]
                action = {"port": app.port, "httpHeaders": headers}
                assert await health_of({"httpGet": action}) == "HTTP status 500"
                assert "Authorization: Bearer x" in app.headers
                assert there.headers[0] == f"Host: localhost:{there.port}"
                assert "X-A: 1" in there.headers
                assert not [line for line in there.headers if line.startswith("Authorization")]

    asyncio.run(main())


async def hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    while await reader.read(65536):
        pass


def test_a_workload_that_hangs_is_unhealthy_at_the_timeout() -> None:
    async def main() -> None:
        async with listening(hang) as app:
            message = {"httpGet": {"port": app.port}, "timeoutSeconds": 1}
            assert await health_of(message) == "no answer within 1 s"
            await eventually_async(lambda: app.open == 0)

    asyncio.run(main())


def test_tcp_is_healthy_when_it_connects() -> None:
    async def main() -> None:
        async with listening(hang) as app:
            assert await health_of({"tcpSocket": {"port": app.port}}) is None
            assert await health_of({"tcpSocket": {"port": app.port, "host": "localhost"}}, "192.0.2.1") is None
            await eventually_async(lambda: app.peers == ["127.0.0.1"] * 2)
        assert await health_of({"tcpSocket": {"port": free_port()}}) == "Connection refused"

    asyncio.run(main())


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example"])
def test_what_is_no_host_name_is_unhealthy(host: str) -> None:
    async def main() -> None:
        assert await health_of({"tcpSocket": {"port": 80, "host": host}}) == "what should be a host is no name"

    asyncio.run(main())


def test_a_mistake_of_our_own_is_unhealthy_and_does_not_end_the_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr(workload_health, "check_http", fail)
    assert asyncio.run(health_of(HTTP)) == "the check failed in itself: 'x'"


def test_a_host_whose_name_is_unknown_is_unhealthy() -> None:
    async def main() -> None:
        said = await health_of({"tcpSocket": {"port": 80, "host": "no-such-host.invalid"}})
        assert said is not None
        assert "\n" not in said

    asyncio.run(main())


@pytest.mark.parametrize(
    ("service", "said"), [("serving", None), ("not-serving", "NOT_SERVING"), ("other", "gRPC status NOT_FOUND")]
)
def test_grpc_is_healthy_when_it_serves(service: str, said: str | None) -> None:
    with health_server() as server:
        assert asyncio.run(health_of({"grpc": {"port": server.port, "service": service}})) == said
        assert " istio-probe/1.0" in server.caller()


@contextmanager
def reaping() -> Iterator[Callable[[], Own]]:
    """The agent's own reaper, woken by SIGCHLD of the running loop."""
    reaper = Reaper(RecordedLog().scope)

    def own() -> Own:
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, reaper.sweep)
        return reaper.own

    yield own
    assert reaper._owners == {}


async def command_health(argv: list[str], own: Callable[[], Own], **numbers: int) -> str | None:
    found = own()
    owned: list[Callable[[], bool]] = []

    def noting(pid: int, collect: Callable[[], bool]) -> None:
        found(pid, collect)
        owned.append(lambda: not Path(f"/proc/{pid}").exists())

    said = await health_of({"exec": {"command": argv}, **numbers}, own=noting)
    await eventually_async(lambda: all(is_gone() for is_gone in owned))
    return said


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["true"], None),
        (["sh", "-c", "exit 3"], "sh ended with code 3"),
        (["sh", "-c", "kill -9 $$"], "sh ended with signal 9"),
        (["/no/such/program"], "No such file or directory"),
        (["sh", "-c", "echo much; echo more >&2; read line"], "sh ended with code 1"),
    ],
)
def test_a_command_is_healthy_when_it_ends_with_0(argv: list[str], said: str | None) -> None:
    with reaping() as own:
        assert asyncio.run(command_health(argv, own)) == said


def test_a_command_has_no_shell(tmp_path: Path) -> None:
    with reaping() as own:
        assert asyncio.run(command_health(["test", "a b", "=", "a b"], own)) is None
        assert asyncio.run(command_health(["true", f"; touch {tmp_path / 'made'}"], own)) is None
    assert os.listdir(tmp_path) == []


def test_a_command_that_takes_too_long_is_killed_with_all_it_started() -> None:
    with reaping() as own:
        argv = ["sh", "-c", "sleep 1000 & sleep 1000"]
        assert asyncio.run(command_health(argv, own, timeoutSeconds=1)) == "no answer within 1 s"


def parsed(message: Mapping[str, object]) -> WorkloadProbe:
    return parse_workload_probe(message)


def test_defaults_are_those_of_istio() -> None:
    http_check = HttpCheck("", 80, "/", False, ())
    assert parsed(HTTP) == WorkloadProbe(http_check, initial_delay=0, timeout=1, period=10, successes=1, failures=1)


@pytest.mark.parametrize(
    ("message", "check"),
    [
        ({"tcpSocket": {"port": "8080", "host": "h"}}, TcpCheck("h", 8080)),
        ({"tcp_socket": {"port": 8080}}, TcpCheck("", 8080)),
        ({"grpc": {"port": 1, "service": "s"}}, GrpcCheck(1, "s")),
        ({"exec": {"command": ["a", "b"]}}, ExecCheck(("a", "b"))),
        (
            {"http_get": {"port": 1, "scheme": "HTTPS", "path": "x", "http_headers": [{"name": "N", "value": "v"}]}},
            HttpCheck("", 1, "/x", True, (("N", "v"),)),
        ),
    ],
)
def test_each_check_is_read(message: dict[str, Any], check: object) -> None:
    assert parsed(message).check == check


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({}, "readinessProbe has no check; write exactly one of httpGet, tcpSocket, exec, grpc"),
        ({"httpGet": {"port": 1}, "exec": {"command": ["x"]}}, "readinessProbe has httpGet and exec; write exactly"),
        ({"exec": {}}, "readinessProbe.exec.command is not a command"),
        ({"exec": {"command": []}}, "readinessProbe.exec.command is not a command"),
        ({"exec": {"command": [""]}}, "readinessProbe.exec.command is not a command"),
        ({"exec": {"command": ["a\0"]}}, "readinessProbe.exec.command is not a command"),
        ({"exec": {"command": "true"}}, "readinessProbe.exec.command is not a list"),
        ({"httpGet": 80}, "readinessProbe.httpGet is not a mapping"),
        ({"httpGet": {}}, "readinessProbe.httpGet.port is missing; write a number from 1 to 65535"),
        ({"httpGet": {"port": 70000}}, "readinessProbe.httpGet.port is '70000'; write a number"),
        ({"httpGet": {"port": 1, "scheme": "ftp"}}, "readinessProbe.httpGet.scheme is 'ftp'; write HTTP or HTTPS"),
        ({"httpGet": {"port": 1, "httpHeaders": [{"value": "s3cret"}]}}, "httpHeaders[0].name is missing"),
        ({"httpGet": {"port": 1, "httpHeaders": {"a": "s3cret"}}}, "httpHeaders is not a list"),
        ({**HTTP, "periodSeconds": -1}, "readinessProbe.periodSeconds is '-1'; write a whole number"),
        ({**HTTP, "timeoutSeconds": 1.5}, "readinessProbe.timeoutSeconds is '1.5'; write a whole number"),
        ({**HTTP, "timeoutSeconds": True}, "readinessProbe.timeoutSeconds is 'True'; write a whole number"),
        ({**HTTP, "failureThreshold": 2**31}, "readinessProbe.failureThreshold is '2147483648'; write"),
    ],
)
def test_what_is_wrong_is_said_with_its_path(message: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parsed(message)
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)
