"""What one layer's nested messages do to those below: replaced as Istio replaces them, or merged deeply."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.errors import SettingsError
from pilot_agent.settings.mesh import Layers
from tests.unit.settings.told import told

texts = st.text(max_size=10)


def layered(*documents: dict[str, Any], is_deep: bool = False) -> Layers:
    layers = Layers(is_deep=is_deep)
    for number, document in enumerate(documents, start=1):
        layers.add(document, str(number))
    return layers


# Replaced


def test_a_layer_replaces_a_whole_message_and_says_what_is_lost() -> None:
    layers = layered({"tracing": {"zipkin": {"address": "z:1"}, "sampling": 1}}, {"tracing": {"sampling": 5}})
    assert layers.result().tracing == {"sampling": 5}
    assert layers.warnings == [
        "2: tracing replaces the one of 1: zipkin.address is lost; --deepMerge keeps what a layer does not name"
    ]


def test_a_layer_that_repeats_what_is_below_loses_nothing() -> None:
    below = {"tracing": {"zipkin": {"address": "z:1"}}, "image": {"imageType": "a"}}
    above = {"tracing": {"zipkin": {"address": "z:2"}, "sampling": 1}, "image": {"imageType": "b"}}
    assert layered(below, above).warnings == []


def test_a_deep_merge_keeps_what_a_layer_does_not_name() -> None:
    below = {"tracing": {"zipkin": {"address": "z:1"}, "sampling": 1}, "extraStatTags": ["a"]}
    above = {"tracing": {"sampling": 5, "tlsSettings": {"sni": "s"}}, "extraStatTags": ["b"]}
    layers = layered(below, above, is_deep=True)
    assert layers.result().tracing == {"zipkin": {"address": "z:1"}, "sampling": 5, "tlsSettings": {"sni": "s"}}
    assert layers.result().extra_stat_tags == ["b"], "lists are replaced"
    assert layers.warnings == []


def test_some_proxy_headers_stay_when_a_layer_does_not_name_them() -> None:
    below = {
        "proxyHeaders": {"server": {"value": "a"}, "requestId": {"disabled": True}, "preserveHttp1HeaderCase": True}
    }
    found = layered(below, {"proxyHeaders": {"attemptCount": {"disabled": True}}}).result().values["proxyHeaders"]
    assert found == {
        "server": {"value": "a"},
        "requestId": {"disabled": True},
        "attemptCount": {"disabled": True},
    }


def test_each_key_of_proxy_metadata_has_its_own_source() -> None:
    config = layered({"proxyMetadata": {"A": "1", "B": "1"}}, {"proxyMetadata": {"B": "2"}}).result()
    assert config.proxy_metadata == {"A": "1", "B": "2"}
    assert (config.sources["proxyMetadata.A"], config.sources["proxyMetadata.B"]) == ("1", "2")


# Merged


def test_a_deep_merge_leaves_one_tracer_and_what_stands_beside_it() -> None:
    below = {"tracing": {"zipkin": {"address": "z:1"}, "sampling": 5}}
    layers = layered(below, {"tracing": {"datadog": {"address": "d:1"}}}, is_deep=True)
    assert layers.result().tracing == {"datadog": {"address": "d:1"}, "sampling": 5}


def test_a_deep_merge_of_tags_goes_by_name_and_leaves_one_kind_of_each() -> None:
    below = {"tracing": {"customTags": {"a": {"literal": {"value": "1"}}, "b": {"literal": {"value": "2"}}}}}
    above = {"tracing": {"customTags": {"b": {"header": {"name": "h"}}, "c": {"literal": {}}}}}
    assert layered(below, above, is_deep=True).result().tracing["customTags"] == {
        "a": {"literal": {"value": "1"}},
        "b": {"header": {"name": "h"}},
        "c": {"literal": {}},
    }


def test_another_tracer_is_no_loss_to_warn_of() -> None:
    layers = layered({"tracing": {"zipkin": {"address": "z:1"}}}, {"tracing": {"datadog": {"address": "d:1"}}})
    assert layers.warnings == []


def test_a_deep_merge_remembers_who_said_what() -> None:
    below = {"tracing": {"zipkin": {"address": "z"}}}
    layers = layered(below, {"tracing": {"sampling": 5}}, is_deep=True)
    sources = layers.result().sources
    assert (sources["tracing.zipkin.address"], sources["tracing.sampling"]) == ("1", "2")


def test_a_fault_after_a_deep_merge_names_the_layer_it_came_from(tmp_path: Any) -> None:
    mesh = tmp_path / "mesh"
    mesh.write_text('{"defaultConfig": {"tracing": {"zipkin": {"address": "z"}}}}')
    with pytest.raises(SettingsError) as refused:
        told({"tracing": {"sampling": 5}}, mesh_config=str(mesh), deep_merge=True)
    assert f"tracing.zipkin.address (from mesh file {mesh}): 'z' is not an address" in str(refused.value)


def test_several_losses_are_told_in_one_warning() -> None:
    below = {"tracing": {"tlsSettings": {"sni": "s", "mode": "SIMPLE"}}}
    assert layered(below, {"tracing": {}}).warnings == [
        "2: tracing replaces the one of 1: tlsSettings.sni, tlsSettings.mode are lost; "
        "--deepMerge keeps what a layer does not name"
    ]


@pytest.mark.parametrize("is_deep", [False, True])
def test_an_undefined_forwarded_client_cert_leaves_the_one_below(is_deep: bool) -> None:
    below = {"proxyHeaders": {"forwardedClientCert": "SANITIZE"}}
    found = layered(below, {"proxyHeaders": {"forwardedClientCert": "UNDEFINED"}}, is_deep=is_deep).result()
    assert found.values["proxyHeaders"] == {"forwardedClientCert": "SANITIZE"}


messages = st.fixed_dictionaries(
    {},
    optional={
        "sampling": st.integers(0, 100),
        "zipkin": st.just({"address": "z:1"}),
        "datadog": st.just({"address": "d:1"}),
        "tlsSettings": st.fixed_dictionaries({}, optional={"sni": texts, "caCertificates": texts}),
    },
)


@given(st.lists(messages, min_size=1, max_size=4))
def test_a_deep_merge_is_the_last_word_on_each_field_and_never_two_tracers(documents: list[dict[str, Any]]) -> None:
    found = layered(*({"tracing": each} for each in documents), is_deep=True).result().tracing
    assert not {"zipkin", "datadog"} <= set(found)
    for name in ("sampling", "tlsSettings"):
        said = [each[name] for each in documents if name in each]
        if name == "sampling":
            assert found.get(name) == (said[-1] if said else None)
        else:
            assert found.get(name, {}) == {key: text for each in said for key, text in each.items()}


@given(st.lists(messages, min_size=2, max_size=4))
def test_what_no_warning_names_is_not_lost(documents: list[dict[str, Any]]) -> None:
    plain, deep = (layered(*({"tracing": each} for each in documents), is_deep=deep) for deep in (False, True))
    if not plain.warnings:
        assert plain.result().tracing == deep.result().tracing
    assert plain.result().tracing == layered({"tracing": documents[-1]}).result().tracing
