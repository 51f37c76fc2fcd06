"""The real Envoy as another user than the agent: where root serves DNS on port 53, interception must know Envoy's."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.support.agents import AgentProcess
from tests.support.envoy_binary import envoy_binary
from tests.support.envoy_views import epoch
from tests.support.eventually import eventually

MakeAgent = Callable[..., AgentProcess]


@pytest.mark.skipif(os.geteuid() != 0, reason="changing the user needs root")
def test_envoy_runs_as_1337_and_hands_over_to_its_like(agent: MakeAgent, tmp_path: Path) -> None:
    binary = Path(shutil.copy(envoy_binary(), tmp_path / "envoy"))  # where any user may execute it
    for directory in (tmp_path, *tmp_path.parents):
        directory.chmod(directory.stat().st_mode | 0o011)
    running = agent(binary=binary, env={"DNS_PROXY_ADDR": "localhost:53"}).start().until_ready()
    (first,) = running.envoys()
    assert psutil.Process(first).uids().real == psutil.Process(first).gids().real == 1337
    assert psutil.Process(running.pid).uids().real == 0
    running.write_mesh(concurrency=2)
    eventually(lambda: running.lines("has taken over"), within=15)
    assert epoch(running) == 1
    eventually(lambda: len(running.envoys()) == 1, within=15)
    assert psutil.Process(running.envoys()[0]).uids().real == 1337
    assert running.stop() == 0
    assert running.left_behind() == []
