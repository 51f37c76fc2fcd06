"""`pilot-agent drain`: what is asked of the agent, which connections are waited for, and how the waiting ends."""

import pytest

from pilot_agent.commands.drain import PERIOD_S, begin, connections_left, wait_until_drained
from pilot_agent.commands.http_call import RequestFailed
from pilot_agent.errors import AgentError
from tests.support.clocks import ManualClock
from tests.support.ports import free_port
from tests.support.recorded_log import RecordedLog
from tests.unit.commands.runner import answer, peer

SERVING = "listener.0.0.0.0_8080.downstream_cx_active: 3\n"
OWN = "listener.0.0.0.0_15021.downstream_cx_active: 2\nlistener.admin.downstream_cx_active: 1\n"


class Waiting:
    """A wait whose pauses are the only thing that takes time; an answer is a count or an error's text."""

    def __init__(self, *answers: int | str) -> None:
        self.clock, self.recorded = ManualClock(), RecordedLog()
        self.pauses: list[float] = []
        self._answers = list(answers)

    def count(self) -> int:
        found = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(found, str):
            raise AgentError(found)
        return found

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.now += seconds

    def until_drained(self, timeout: int = 30) -> list[str]:
        wait_until_drained(self.count, timeout, self.clock, self.recorded.scope, self.pause)
        return self.recorded.lines


def test_nothing_to_wait_for_is_one_question_and_one_line() -> None:
    waiting = Waiting(0)
    assert waiting.until_drained() == ["info drained: no connection is left"]
    assert waiting.pauses == []


def test_a_line_is_said_when_the_number_changes() -> None:
    waiting = Waiting(2, 2, 1, 1, 0)
    head = "info Waiting for Envoy to drain (timeout: 30 seconds): "
    assert waiting.until_drained() == [
        f"{head}2 connections are left",
        f"{head}1 connection is left",
        "info drained: no connection is left",
    ]
    assert waiting.pauses == [PERIOD_S] * 4


def test_the_time_ends_it_with_the_last_number() -> None:
    waiting = Waiting(5, 4)
    with pytest.raises(AgentError, match=r"^not drained within 3 seconds: 4 connections are left$"):
        waiting.until_drained(3)
    assert waiting.pauses == [1.0, 1.0, 1.0]


def test_no_time_at_all_is_one_question() -> None:
    waiting = Waiting(1)
    with pytest.raises(AgentError, match="not drained within 0 seconds: 1 connection is left"):
        waiting.until_drained(0)
    assert (waiting.pauses, waiting.recorded.lines) == ([], [])


def test_an_envoy_that_does_not_say_is_asked_again() -> None:
    waiting = Waiting("connection refused", "connection refused", 0)
    assert waiting.until_drained() == [
        "info Waiting for Envoy to drain (timeout: 30 seconds): connection refused",
        "info drained: no connection is left",
    ]


def test_an_envoy_that_never_says_is_not_drained() -> None:
    with pytest.raises(AgentError, match="not drained within 2 seconds: connection refused"):
        Waiting("connection refused").until_drained(2)


def test_the_agents_own_connections_do_not_count() -> None:
    with peer(lambda _: answer("200 OK", f"{OWN}{SERVING}".encode())) as made:
        assert connections_left(f"http://127.0.0.1:{made.port}/stats", [15021]) == 3
        assert connections_left(f"http://127.0.0.1:{made.port}/stats", [15021, 8080]) == 0


def test_an_envoy_without_the_statistic_is_an_error_that_says_so() -> None:
    with peer(lambda _: answer("200 OK", b"")) as made, pytest.raises(AgentError, match="exports no statistics"):
        connections_left(f"http://127.0.0.1:{made.port}/stats", [])


def test_a_status_that_is_no_answer_is_named() -> None:
    with peer(lambda _: answer("503 No")) as made, pytest.raises(AgentError, match="HTTP status code 503"):
        connections_left(f"http://127.0.0.1:{made.port}/stats", [])


def test_the_agent_is_asked_with_a_post() -> None:
    with peer(lambda _: answer("200 OK", b"OK")) as made:
        begin(f"http://127.0.0.1:{made.port}/drain")
    assert made.requests[0].startswith(b"POST /drain HTTP/1.1\r\n")


def test_a_refusal_of_the_agent_is_told_in_its_words() -> None:
    with (
        peer(lambda _: answer("500 Oops", b"drain failed: no Envoy\n")) as made,
        pytest.raises(AgentError, match=r"HTTP status code 500: drain failed: no Envoy$"),
    ):
        begin(f"http://127.0.0.1:{made.port}/drain")


def test_an_agent_that_is_not_there_is_told_at_once() -> None:
    with pytest.raises(RequestFailed, match="connection refused"):
        begin(f"http://127.0.0.1:{free_port()}/drain")
