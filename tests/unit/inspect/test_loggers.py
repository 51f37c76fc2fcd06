"""Log levels: what is asked of Envoy for `--level`, and what its answer says."""

import pytest

from pilot_agent.errors import UsageError
from pilot_agent.inspect import loggers

SCOPES = {"admin": "warning", "http": "info", "http2": "warning"}


@pytest.mark.parametrize(
    ("wanted", "requests"),
    [
        ("debug", ["/logging?level=debug"]),
        ("none", ["/logging?level=off"]),
        ("WARN", ["/logging?level=warning"]),
        ("http:debug", ["/logging?paths=http:debug"]),
        ("http=debug, admin:off", ["/logging?paths=http:debug,admin:off"]),
        ("envoy::http:trace", ["/logging?paths=http:trace"]),
        ("info,http:debug", ["/logging?level=info", "/logging?paths=http:debug"]),
        ("http:debug,info", ["/logging?level=info"]),
        ("http:debug,http:info", ["/logging?paths=http:info"]),
    ],
)
def test_what_is_asked(wanted: str, requests: list[str]) -> None:
    assert loggers.changes(wanted, SCOPES) == requests


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("loud", "'loud' is not one of trace, debug,"),
        ("debgu", 'did you mean "debug"?'),
        ("http:", "'' is not one of"),
        (":debug", "a scope is missing"),
        ("", "'' is not one of"),
        ("info,,", "'' is not one of"),
        ("htp:debug", "Envoy has no logger 'htp'; did you mean \"http\"?"),
    ],
)
def test_what_is_refused(wanted: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        loggers.changes(wanted, SCOPES)
    assert said in str(caught.value)


def test_an_answer_is_told_in_order() -> None:
    levels = loggers.present("active loggers:\n  http: info\n  admin: warning\n")
    assert loggers.shown(levels) == "active loggers:\n  admin: warning\n  http: info\n"


@pytest.mark.parametrize("answer", ["", "<html>", "loggers:\n  a: b\n"])
def test_another_answer_has_no_levels(answer: str) -> None:
    assert loggers.present(answer) == {}
