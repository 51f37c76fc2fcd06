"""The rules every test runs under: an empty environment, nothing left behind, and no skips where CI says so."""

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.agents import AgentProcess
from tests.support.fakes import FakeEnvoy
from tests.support.leaks import Snapshot, kill_leaked_processes, watch_this_process
from tests.support.ports import free_port as find_free_port

# PYTHONPATH and pytest's own are about how the tests are run, not about what is tested.
_KEPT = {"PATH", "HOME", "TMPDIR", "LANG", "PYTHONPATH"}
_KEPT_PREFIX = "PYTEST_"

settings.register_profile("tests", deadline=None)  # a slow machine is not a failure
settings.load_profile("tests")

_no_skips = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    wanted = ("PILOT_AGENT_NO_SKIPS", "CI")
    config.stash[_no_skips] = any(os.environ.get(name, "") not in ("", "0", "false") for name in wanted)
    # Here, so that session fixtures see it too.
    for name in set(os.environ) - _KEPT:
        if not name.startswith(_KEPT_PREFIX):
            del os.environ[name]
    watch_this_process()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if item.config.stash[_no_skips] and report.skipped and not hasattr(report, "wasxfail"):
        _fail(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if collector.config.stash[_no_skips] and report.skipped:
        _fail(report)
    return report


def _fail(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"{reason} - and skips are failures here (PILOT_AGENT_NO_SKIPS or CI is set)"


@pytest.fixture(autouse=True)
def same_environment() -> Iterator[None]:
    """What a test sets in the environment ends with it."""
    before = dict(os.environ)
    yield
    after = {name: value for name, value in os.environ.items() if not name.startswith(_KEPT_PREFIX)}
    for name in after.keys() - before.keys():
        del os.environ[name]
    os.environ.update({name: value for name, value in before.items() if not name.startswith(_KEPT_PREFIX)})


@pytest.fixture(autouse=True)
def nothing_left_behind(same_environment: None) -> Iterator[None]:
    """Fails the test that leaks, naming what it left. Set up first, so it looks when the other fixtures are gone."""
    before = Snapshot.take()
    yield
    leaks = before.leaks()
    if leaks:
        kill_leaked_processes(before)
        pytest.fail("left behind: " + "; ".join(leaks), pytrace=False)


@pytest.fixture
def fake_envoy(tmp_path: Path) -> FakeEnvoy:
    return FakeEnvoy(tmp_path)


@pytest.fixture
def free_port() -> Callable[[], int]:
    return find_free_port


@pytest.fixture
def agent(tmp_path: Path, fake_envoy: FakeEnvoy) -> Iterator[Callable[..., AgentProcess]]:
    """Makes agents that run the fake Envoy; `binary=` takes another one. All are ended with the test."""
    made: list[AgentProcess] = []

    def make(*flags: str, binary: Path | None = None, env: dict[str, str] | None = None) -> AgentProcess:
        directory = tmp_path / f"agent-{len(made)}"
        directory.mkdir()
        env = {**fake_envoy.environment, **(env or {})}
        made.append(AgentProcess(directory, binary or fake_envoy.binary, *flags, env=env))
        return made[-1]

    yield make
    for each in made:
        each.kill()
    told = [name for each in made for name in each.told_secrets()]
    assert not told, f"what nobody may see stands in a log or an answer: {told}"
