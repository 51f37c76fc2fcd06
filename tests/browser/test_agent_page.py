"""The page of a real agent with a real Envoy: the agent's own answers are what the page can show."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.agents import AgentProcess
from tests.support.browser import browser, console
from tests.support.envoy_binary import envoy_binary
from tests.support.eventually import eventually

if TYPE_CHECKING:
    from selenium.webdriver import Chrome


@pytest.fixture
def page() -> Iterator["Chrome"]:
    with browser() as running:
        yield running


def said(page: "Chrome", element: str) -> str:
    script = "return document.getElementById(arguments[0]).innerText.replaceAll('\\u00a0', ' ')"
    return str(page.execute_script(script, element))


def until_ready(page: "Chrome") -> None:
    def is_ready() -> bool:
        assert (said(page, "ready"), said(page, "silence")) == ("Ready", "")  # a failure tells both
        return True

    eventually(is_ready, within=20)


def status_of(running: AgentProcess) -> dict[str, Any]:
    code, body = running.fetch("/debug/status")
    assert code == 200
    status: dict[str, Any] = json.loads(body)
    return status


def test_says_what_the_agent_knows(agent: Callable[..., AgentProcess], page: "Chrome") -> None:
    running = agent(binary=envoy_binary()).start().until_ready()
    page.get(f"http://127.0.0.1:{running.ports.status}/")
    until_ready(page)
    status = status_of(running)
    assert said(page, "agent-id") == status["agent"]["id"]
    assert said(page, "envoy-pid") == str(running.envoys()[0])
    for gate in status["gates"]:
        assert f"\n{gate['name']}\topen" in said(page, "gates")
    for listener in status["listeners"]:
        assert listener["name"] in said(page, "listeners")
    assert "virtualInbound" in said(page, "listeners")
    eventually(lambda: "MiB" in said(page, "memory-envoy") and "MiB" in said(page, "memory-agent"))
    eventually(lambda: said(page, "requests-now") == "0")  # known from the second status on
    shown = page.execute_script("return document.body.innerText")
    assert not [word for word in ("undefined", "NaN", "[object") if word in shown]
    assert page.execute_script("return document.getElementById('silence').hidden")
    assert console(page) == []
    assert running.stop() == 0


def test_shows_the_restart_of_an_envoy_and_the_end_of_the_agent(
    agent: Callable[..., AgentProcess], page: "Chrome"
) -> None:
    running = agent(binary=envoy_binary()).start().until_ready()
    page.get(f"http://127.0.0.1:{running.ports.status}/")
    until_ready(page)
    (first,) = running.envoys()
    assert said(page, "envoy-pid") == str(first)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: said(page, "envoy-exit") != "none" and said(page, "ready") == "Ready", within=20)
    assert said(page, "envoy-pid") == str(running.envoys()[0]) != str(first)
    assert "1" in said(page, "envoy-restarts") and "signal" in said(page, "envoy-exit")
    assert running.stop() == 0
    eventually(lambda: "does not answer since" in said(page, "silence"), within=20)
    assert "virtualInbound" in said(page, "listeners")
