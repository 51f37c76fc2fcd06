"""Durations, ports, addresses and booleans: what people write, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.values import Duration, HostPort, parse_bool, parse_port


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("5s", 5 * 10**9),
        ("250ms", 250 * 10**6),
        ("1m30s", 90 * 10**9),
        ("1h2m3s4ms5us6ns", 3723 * 10**9 + 4_005_006),
        ("1.5s", 1_500_000_000),
        (".5s", 500_000_000),
        ("-5s", -5 * 10**9),
        ("+5s", 5 * 10**9),
        ("7µs", 7_000),
        ("7μs", 7_000),
    ],
)
def test_durations_are_read_as_go_writes_them(text: str, nanoseconds: int) -> None:
    assert Duration.parse(text) == Duration(nanoseconds)


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "5s ", "5x", "--5s", "1.2.3s", "s5", "5sm", ".s", "-", "+"])
def test_what_is_no_duration_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration: write a number with a unit"):
        Duration.parse(text)


@given(st.integers(min_value=-(10**15), max_value=10**15))
def test_a_duration_survives_being_written_and_read(nanoseconds: int) -> None:
    assert Duration.parse(str(Duration(nanoseconds))) == Duration(nanoseconds)


@pytest.mark.parametrize(
    ("duration", "text"),
    [(Duration.of(90), "90s"), (Duration.of(0.5), "0.5s"), (Duration(0), "0s"), (Duration.of(-1.5), "-1.5s")],
)
def test_durations_are_written_in_protobufs_form(duration: Duration, text: str) -> None:
    assert str(duration) == text


def test_a_duration_in_other_units() -> None:
    duration = Duration.parse("1.5s")
    assert (duration.seconds, duration.milliseconds, duration.is_whole_seconds) == (1.5, 1500, False)
    assert Duration.parse("2s").is_whole_seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("istiod.istio-system.svc:15012", HostPort("istiod.istio-system.svc", 15012)),
        ("127.0.0.1:1", HostPort("127.0.0.1", 1)),
        ("[::1]:65535", HostPort("::1", 65535)),
    ],
)
def test_addresses_are_read_and_written_back(text: str, expected: HostPort) -> None:
    assert HostPort.parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("host", "write host:port"),
        (":80", "write host:port"),
        ("", "write host:port"),
        ("::1:80", "brackets"),
        ("host:", "not a port"),
        ("host:0", "ports go from 1 to 65535"),
        ("host:http", "not a port number"),
    ],
)
def test_what_is_no_address_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        HostPort.parse(text)


@pytest.mark.parametrize("value", [1, 65535, "1", "65535", "080"])
def test_ports(value: object) -> None:
    assert parse_port(value) == int(str(value))


@pytest.mark.parametrize("value", [0, 65536, -1, "0", "-1", "+1", " 1", "1.0", 1.0, True, None, "٣", "", "²"])
def test_what_is_no_port(value: object) -> None:
    with pytest.raises(ValueError, match="not a port"):
        parse_port(value)


@pytest.mark.parametrize("text", ["1", "t", "T", "TRUE", "true", "True"])
def test_true_words(text: str) -> None:
    assert parse_bool(text) is True


@pytest.mark.parametrize("text", ["0", "f", "F", "FALSE", "false", "False"])
def test_false_words(text: str) -> None:
    assert parse_bool(text) is False


@pytest.mark.parametrize("text", ["", "yes", "no", "on", "tRUE", " true", "2"])
def test_other_words_are_no_booleans(text: str) -> None:
    with pytest.raises(ValueError, match="write true or false"):
        parse_bool(text)


@pytest.mark.parametrize("text", ["\u0665s", "9" * 400 + "h", "300000h0m99999999999s"])
def test_digits_are_plain_and_lengths_countable(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        Duration.parse(text)
