"""The token: read anew each time, judged without trust, and never shown."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.errors import IdentityError
from pilot_agent.identity.tokens import LARGEST_TOKEN, Tokens, TokenState, expiry_of, gce_token, token_file
from tests.support.clocks import ManualClock
from tests.support.recorded_log import RecordedLog


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def jwt(**claims: Any) -> str:
    return f"{encoded(b'{}')}.{encoded(json.dumps(claims).encode())}.c2lnbmF0dXJl"


class Stand:
    """Tokens that read what `content` gives."""

    def __init__(self, content: Callable[[], str], *, is_required: bool = False) -> None:
        self.clock, self.log = ManualClock(), RecordedLog()
        self.tokens = Tokens(content, self.log.scope, self.clock, is_required=is_required)


def failing() -> str:
    raise IdentityError("token", "the token is gone")


# The file


def test_white_space_around_the_token_is_none_of_it(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_bytes(b"\n  a.b.c\r\n\n")
    assert token_file(path) == "a.b.c"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"caf\xc3\xa9-very-secret", "no line of text"),
        (b"\x00very-secret", "no line of text"),
        (b"very\nsecret", "no line of text"),
        (b"very-secret" * LARGEST_TOKEN, f"larger than {LARGEST_TOKEN} bytes"),
    ],
)
def test_a_file_that_holds_no_token_is_named_and_not_quoted(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(IdentityError) as caught:
        token_file(path)
    assert caught.value.kind == "token"
    assert str(path) in str(caught.value) and why in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_file_that_can_not_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="No such file or directory"):
        token_file(tmp_path / "missing")
    with pytest.raises(IdentityError, match="Is a directory"):
        token_file(tmp_path)


# When it expires


def test_a_jwt_says_when_it_expires() -> None:
    assert expiry_of(jwt(exp=1234)) == 1234.0
    assert expiry_of(jwt(exp=1234.5)) == 1234.5


@pytest.mark.parametrize(
    "token",
    [
        "",
        "opaque",
        "a.b",
        "a.b.c.d",
        "..",
        f"h.{encoded(b'no json')}.s",
        f"h.{encoded(b'[1]')}.s",
        f"h.{encoded(b'null')}.s",
        f"h.{encoded(bytes([0xFF]))}.s",
        f"h.{encoded(b'[' * 100_000)}.s",
        "h.*.s",
        "h.é.s",
        jwt(),
        jwt(exp=None),
        jwt(exp="tomorrow"),
        jwt(exp=[1]),
        jwt(exp=float("nan")),
        jwt(exp=float("inf")),
        jwt(exp=10**400),
        jwt(exp=1e300),
    ],
)
def test_what_does_not_say_so_is_taken_as_it_is(token: str) -> None:
    assert expiry_of(token) is None


@given(st.text(), st.binary())
def test_nothing_in_a_token_can_do_harm(text: str, payload: bytes) -> None:
    expiry_of(text)
    expiry_of(f"{text}.{text}.{text}")
    expiry_of(f"h.{encoded(payload)}.s")


# What is said of it


def test_a_token_with_time_left_is_no_news() -> None:
    stand = Stand(lambda: jwt(exp=1000 + 3600))
    assert stand.tokens.read() == jwt(exp=4600)
    assert stand.tokens.state == TokenState(4600.0, None)
    assert stand.log.lines == []


def test_a_token_that_expires_soon_is_warned_of_once_until_that_changes() -> None:
    exp = 4600
    stand = Stand(lambda: jwt(exp=exp))
    stand.tokens.look()
    stand.clock.advance(3600 - 599)
    stand.tokens.look()
    stand.tokens.look()
    stand.clock.advance(599)
    stand.tokens.read()
    stand.tokens.read()
    assert stand.log.lines == [
        "warn the token expires in less than 10 minutes: whoever writes its file (the kubelet) has not renewed it; "
        "the CA may refuse us",
        "warn the token has expired: whoever writes its file (the kubelet) has not renewed it; the CA may refuse us",
    ]
    exp = 10_000
    stand.tokens.look()
    assert stand.log.lines[2:] == ["info the token is good again"]
    assert stand.tokens.state == TokenState(10_000.0, None)


def test_an_expired_token_is_sent_all_the_same() -> None:
    stand = Stand(lambda: jwt(exp=1))
    assert stand.tokens.read() == jwt(exp=1), "the CA's clock decides, not ours"


def test_without_a_token_the_call_goes_on_and_a_warning_says_so_once() -> None:
    stand = Stand(failing)
    assert (stand.tokens.read(), stand.tokens.read()) == ("", "")
    assert stand.log.lines == ["warn the token is gone; the CA may refuse us"]
    assert stand.tokens.state == TokenState(None, "the token is gone")


def test_a_required_token_that_is_missing_fails_the_call_but_no_look() -> None:
    stand = Stand(failing, is_required=True)
    with pytest.raises(IdentityError, match="the token is gone"):
        stand.tokens.read()
    stand.tokens.look()
    assert stand.log.lines == ["warn the token is gone; the CA may refuse us"]


def test_each_call_reads_anew(tmp_path: Path) -> None:
    path = tmp_path / "token"
    stand = Stand(lambda: token_file(path))
    path.write_text("first-token")
    assert stand.tokens.read() == "first-token"
    path.write_text("second-token")
    assert stand.tokens.read() == "second-token"
    assert "-token" not in repr(vars(stand.tokens)) + str(stand.log.lines)


# Google's


def test_googles_token_is_asked_for_the_trust_domain_and_left_in_the_file(tmp_path: Path) -> None:
    asked: list[str] = []
    written: list[tuple[Path, bytes, int]] = []

    def ask(path: str) -> str:
        asked.append(path)
        return "a.b.c\n"

    token = gce_token(ask, "cluster.local", tmp_path / "t", lambda *each: written.append(each))
    assert token == "a.b.c"
    assert asked == [
        "/computeMetadata/v1/instance/service-accounts/default/identity?audience=cluster.local&format=full"
    ]
    assert written == [(tmp_path / "t", b"a.b.c", 0o640)]


@pytest.mark.parametrize("answer", ["", " \n", "two\nlines", "\x00"])
def test_an_answer_that_is_no_token_fails_the_call(tmp_path: Path, answer: str) -> None:
    with pytest.raises(IdentityError, match="no token") as caught:
        gce_token(lambda _: answer, "td", tmp_path / "t", lambda *_: None)
    assert caught.value.kind == "token"


def test_a_file_that_can_not_be_written_does_not_fail_the_call(tmp_path: Path) -> None:
    def write(*_: object) -> None:
        raise OSError(28, "No space left on device")

    assert gce_token(lambda _: "a.b.c", "td", tmp_path / "t", write) == "a.b.c"
