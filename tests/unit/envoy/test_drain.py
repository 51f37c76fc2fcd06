"""What is posted for a drain, and which connections count while it lasts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.envoy.drain import SUFFIX, DrainOptions, count_connections

OWN = (15021, 15090, 15091)


@pytest.mark.parametrize(
    ("options", "path"),
    [
        (DrainOptions(inbound_only=True, skip_exit=False), "/drain_listeners?inboundonly&graceful"),
        (DrainOptions(inbound_only=True, skip_exit=True), "/drain_listeners?inboundonly&graceful&skip_exit"),
        (DrainOptions(inbound_only=False, skip_exit=False), "/drain_listeners?graceful"),
        (DrainOptions(inbound_only=False, skip_exit=True), "/drain_listeners?graceful&skip_exit"),
    ],
)
def test_what_is_posted(options: DrainOptions, path: str) -> None:
    assert options.path == path


def stats(*pairs: tuple[str, object]) -> str:
    return "".join(f"{name}: {value}\n" for name, value in pairs)


ISTIOS_VECTOR = stats(
    ("http.admin.downstream_cx_active", 2),
    ("http.inbound_0.0.0.0_8080.downstream_cx_active", 3),
    ("listener.0.0.0.0_15021.downstream_cx_active", 1),
    ("listener.0.0.0.0_15090.downstream_cx_active", 1),
    ("listener.admin.downstream_cx_active", 2),
    ("listener.admin.main_thread.downstream_cx_active", 2),
    ("listener.envoy_internal_outbound.downstream_cx_active", 9),
    ("listener.0.0.0.0_8443.downstream_cx_active", 6),
    ("listener.0.0.0.0_8443.worker_0.downstream_cx_active", 4),
    ("listener.0.0.0.0_8443.worker_1.downstream_cx_active", 2),
    ("listener.0.0.0.0_9093.downstream_cx_active", 8),
    ("listener.10.112.32.70_9043.downstream_cx_active", 1),
    ("listener.10.112.33.230_2181.downstream_cx_active", 1),
    ("listener.10.112.40.186_9043.downstream_cx_active", 2),
    ("listener.10.112.43.239_9043.downstream_cx_active", 1),
)


def test_istios_vector() -> None:
    assert count_connections(ISTIOS_VECTOR, OWN) == 19


@pytest.mark.parametrize(
    "text", ["", "\n", stats(("http.x.downstream_cx_active", 4)), "listener.a.downstream_cx_total: 4"]
)
def test_no_such_statistic_is_not_zero(text: str) -> None:
    assert count_connections(text, OWN) is None


@pytest.mark.parametrize(
    "listener",
    [
        "admin",
        "admin.main_thread",
        "envoy_internal_x",
        "0.0.0.0_15021",
        "0.0.0.0_15090",
        "0.0.0.0_15091",
        "127.0.0.1_15090",
        "[__]_15021",
        "[__1]_15090",
        "__15021",
        "0.0.0.0_80.worker_3",
    ],
)
def test_the_agents_own_business_does_not_count(listener: str) -> None:
    assert count_connections(stats((f"listener.{listener}{SUFFIX}", 5)), OWN) == 0


@pytest.mark.parametrize(
    "listener",
    [
        "0.0.0.0_8080",
        "[__]_8080",
        "[fd00__1]_8080",
        "virtualInbound",
        "virtualOutbound",
        "0.0.0.0_150210",
        "15021_80",
        "administration",
        "0.0.0.0_5021",
    ],
)
def test_everything_else_counts(listener: str) -> None:
    assert count_connections(stats((f"listener.{listener}{SUFFIX}", 5)), OWN) == 5


@pytest.mark.parametrize("value", ["-1", "1.5", "", "x", "No recorded values"])
def test_a_value_that_is_no_count_is_skipped(value: str) -> None:
    text = stats((f"listener.a_1{SUFFIX}", value))
    assert count_connections(text, OWN) is None
    assert count_connections(text + stats((f"listener.b_2{SUFFIX}", 3)), OWN) == 3


@given(
    st.dictionaries(st.sampled_from(["0.0.0.0_80", "[__]_81", "v_15021", "admin", "a_1.worker_0"]), st.integers(0, 99))
)
def test_the_count_is_the_sum_over_foreign_listeners(counts: dict[str, int]) -> None:
    text = stats(*((f"listener.{name}{SUFFIX}", count) for name, count in counts.items()))
    expected = sum(count for name, count in counts.items() if name in ("0.0.0.0_80", "[__]_81"))
    assert count_connections(text, OWN) == (expected if counts else None)
