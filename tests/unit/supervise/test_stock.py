"""When the binary is asked whether it is a stock Envoy, and which pushes are looked at at all."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pilot_agent.envoy.build import Build
from pilot_agent.envoy.command import Launch
from pilot_agent.supervise.desired import Desired
from pilot_agent.supervise.stock import StockEnvoy
from pilot_agent.xds.account import XdsAccount
from tests.support.pushed import LISTENER, listener
from tests.support.recorded_log import RecordedLog

BINARY = Path("/usr/local/bin/envoy")
ISTIOS = Build(BINARY, frozenset({"envoy.filters.http.istio_stats", "istio.alpn"}))
STOCK = Build(BINARY, frozenset({"envoy.filters.http.router"}))
SILENT = Build(BINARY, frozenset())
PUSH = listener().SerializeToString()


class Stand:
    def __init__(self, choice: str = "auto", build: Build | None = None, answer: str = "") -> None:
        self.binary, self.asked = BINARY, 0
        self._choice, self._answer = choice, answer
        self.log = RecordedLog()
        self.stock = StockEnvoy(self.desired, self.ask, build, XdsAccount(), self.log.scope)

    def desired(self) -> Desired:
        flags = SimpleNamespace(stock_envoy=self._choice)
        launch = Launch([str(self.binary)], {})
        return cast(Desired, SimpleNamespace(settings=SimpleNamespace(flags=flags), binary=self.binary, launch=launch))

    async def ask(self, _launch: Launch) -> tuple[int | None, str]:
        self.asked += 1
        return 0, self._answer

    def passed(self, push: bytes = PUSH) -> bytes:
        response: Any = asyncio.run(self.stock.pass_on(LISTENER, push, False))
        return bytes(response)


@pytest.mark.parametrize(
    ("choice", "build", "is_suspect"),
    [
        ("auto", None, True),
        ("auto", STOCK, True),
        ("auto", ISTIOS, False),
        ("auto", SILENT, False),
        ("auto", ISTIOS._replace(path=Path("/another/envoy")), True),
        ("true", ISTIOS, True),
        ("false", STOCK, False),
    ],
)
def test_a_push_is_searched_where_the_binary_may_lack_something(
    choice: str, build: Build | None, is_suspect: bool
) -> None:
    stand = Stand(choice, build)
    assert stand.stock.is_suspect(LISTENER, PUSH) is is_suspect
    assert not stand.stock.is_suspect(LISTENER, b"nothing of the kind")


def test_the_binary_is_asked_once_when_it_matters() -> None:
    stand = Stand(answer="")
    assert stand.asked == 0
    assert stand.passed() == PUSH
    assert stand.passed() == PUSH
    assert stand.asked == 1
    assert not stand.stock.is_suspect(LISTENER, PUSH), "one that says nothing is taken for Istio's"
    assert [line for line in stand.log.lines if "doesn't say which extensions it has" in line]


def test_another_binary_is_asked_again() -> None:
    stand = Stand(answer="")
    stand.passed()
    stand.binary = Path("/another/envoy")
    stand.passed()
    assert stand.asked == 2
