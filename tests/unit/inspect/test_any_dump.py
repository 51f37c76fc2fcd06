"""Dumps nobody would write: a clear error or a table, never a bug."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilot_agent.inspect import config_dump, views
from pilot_agent.inspect.config_dump import DumpError
from pilot_agent.inspect.views import Wanted
from tests.support import dumps
from tests.support.dumps import RECORDED_AT, recorded

NAMES = """
active_state address admin bootstrap cluster cluster_name cluster_statuses config configs custom_validator_config
default_filter_chain destination_port domains endpoint endpoint_config endpoints filter_chain_match filter_chains
filter_metadata filters health_status host_statuses inline_bytes inline_string istio lb_endpoints listener locality
match metadata name node path pipe port_value prefix prefix_len prefix_ranges rds regex route route_config routes
safe_regex secret server_names socket_address tls_certificate trust_domains type typed_config user_agent_build_version
validation_context version virtual_hosts certificate_chain trusted_ca @type
""".split()
SECTIONS = {
    "Bootstrap": ("bootstrap",),
    "Clusters": ("static_clusters", "dynamic_active_clusters"),
    "Endpoints": ("static_endpoint_configs", "dynamic_endpoint_configs"),
    "Listeners": ("static_listeners", "dynamic_listeners"),
    "Routes": ("static_route_configs", "dynamic_route_configs"),
    "Secrets": ("dynamic_active_secrets", "dynamic_warming_secrets"),
}
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(["outbound|x|y|z", "a|b|c|d|e"])
)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
)
sections = st.fixed_dictionaries(
    {},
    optional={
        name: st.fixed_dictionaries({}, optional={each: values | st.lists(values) for each in fields})
        for name, fields in SECTIONS.items()
    },
)


@given(sections, st.sampled_from(["short", "json"]), st.sampled_from(["", "x", "10.0.0.1"]), st.integers(0, 80))
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_no_dump_is_a_bug(made: dict[str, Any], output: str, text: str, port: int) -> None:
    dump = config_dump.parse(dumps.dump(**made), "it")
    wanted = Wanted(output, address=text, port=port, name=text, cluster=text)
    for view in views.SINGLE:
        check(partial(views.SINGLE[view], dump, wanted, RECORDED_AT))
    check(lambda: "".join(views.of_everything(dump, wanted, RECORDED_AT)))


@given(values)
def test_no_answer_of_clusters_is_a_bug(made: Any) -> None:
    dump = config_dump.parse(json.dumps({"cluster_statuses": [made]}).encode(), "it")
    text = views.SINGLE["endpoints"](dump, Wanted(), datetime.now(UTC))
    assert text.startswith("ENDPOINT ")


def check(view: Callable[[], str]) -> None:
    try:
        text = view()
    except DumpError as error:
        assert "\n" not in str(error)
    else:
        text.encode("utf-8", "backslashreplace")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it is empty; "),
        (b" \n", "it is empty; "),
        (b"listeners", "it is no JSON (Expecting value: line 1 column 1 (char 0)); "),
        (b"\xff\xfe\x00", "it is no JSON ("),
        (b"[]", "it is no dump of Envoy, but a JSON list; "),
        (b"7", "it is no dump of Envoy, but a JSON number; "),
        (b"[" * 100_000, "it is nested too deeply; "),
        (b"{}", 'it is no dump of Envoy: it has no list "configs"; '),
        (b'{"configs": {}}', 'it is no dump of Envoy: it has no list "configs"; '),
        (b'{"configs": []}', "it: the dump has no ListenersConfigDump; "),
        (b'{"configs": [7, {"@type": 7}]}', "it: the dump has no ListenersConfigDump; "),
        (b'{"cluster_statuses": []}', "it is an answer of /clusters, which only endpoints shows; "),
        (dumps.dump(Listeners={}), "it: no listeners found"),
        (dumps.dump(Listeners={"dynamic_listeners": [{"name": "w", "warming_state": {}}]}), "it: no listeners found"),
    ],
    ids=range(14),
)
def test_what_is_no_dump_is_told(data: bytes, said: str) -> None:
    with pytest.raises(DumpError) as caught:
        views.SINGLE["listeners"](config_dump.parse(data, "it"), Wanted(), RECORDED_AT)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_of_everything_what_is_there_comes_before_what_is_missing() -> None:
    content = json.loads(recorded("config_dump.json"))
    gone = ("SecretsConfigDump", "EndpointsConfigDump")
    content["configs"] = [each for each in content["configs"] if not each["@type"].endswith(gone)]
    parts = []
    with pytest.raises(DumpError, match=r"^it: the dump has no SecretsConfigDump, EndpointsConfigDump; give "):
        for part in views.of_everything(config_dump.Dump(content, "it"), Wanted(), RECORDED_AT):
            parts.append(part)  # noqa: PERF402 - those before the error count
    assert "".join(parts) == recorded("all.txt").partition("\nRESOURCE NAME")[0]


def test_of_everything_an_empty_section_is_an_empty_table() -> None:
    dump = config_dump.parse(dumps.dump(**{name: {} for name in SECTIONS}), "it")
    text = "".join(views.of_everything(dump, Wanted(), RECORDED_AT))
    assert [line.split()[0] for line in text.splitlines() if line] == ["Envoy", *["NAME"] * 3, "No", "NAME"]


def test_a_name_cannot_break_a_row_or_speak_to_the_terminal() -> None:
    made = {"name": "a\n\x1b[31m\tb", "type": "EDS"}
    text = views.SINGLE["clusters"](config_dump.parse(dumps.clusters(made), "it"), Wanted(), RECORDED_AT)
    assert r"a\n\x1b[31m\tb     -" in text
    assert len(text.splitlines()) == 2


def test_the_bootstrap_in_short() -> None:
    node = {
        "metadata": {"ISTIO_VERSION": "1.27.1", "ISTIO_PROXY_SHA": "istio-proxy:ee85c5f"},
        "user_agent_build_version": {
            "version": {"major_number": 1, "minor_number": 35, "patch": 2},
            "metadata": {"build.label": "dev", "build.type": "RELEASE", "revision.status": "Clean", "ssl.version": "X"},
        },
    }
    dump = config_dump.parse(dumps.dump(Bootstrap={"bootstrap": {"node": node}}), "it")
    assert views.SINGLE["bootstrap"](dump, Wanted(), RECORDED_AT) == (
        "Istio Version:       1.27.1\nIstio Proxy Version: ee85c5f\nEnvoy Version:       1.35.2-dev/Clean/RELEASE/X\n"
    )
