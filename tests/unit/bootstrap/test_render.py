"""Rendering: every way a template can be wrong is told with its place, and no text ever breaks the JSON."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.bootstrap import render
from pilot_agent.bootstrap.render import Renderer, templates_directory
from pilot_agent.errors import TemplateError
from tests.unit.bootstrap.documents import TEMPLATE, context, context_of, rendered
from tests.unit.settings.told import told

# Users' own templates


class Templates:
    """A directory of somebody's own templates."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, text: str, name: str = "own.j2") -> str:
        path = self.directory / name
        path.write_text(text)
        return str(path)

    def render(self, text: str, **variables: object) -> Any:
        return Renderer().render(self.write(text), variables)

    def error(self, text: str, **variables: object) -> str:
        """The message, without the directory."""
        with pytest.raises(TemplateError) as refused:
            self.render(text, **variables)
        return str(refused.value).replace(f"{self.directory}/", "")


@pytest.fixture
def templates(tmp_path: Path) -> Templates:
    return Templates(tmp_path)


def test_an_own_template_by_its_path(templates: Templates) -> None:
    found = templates.render('{"id": {{ nodeID | tojson }}, "n": {{ [1, true, none] | tojson }}}', nodeID='a"b<&>')
    assert found == {"id": 'a"b<&>', "n": [1, True, None]}


def test_macros_own_and_shipped_ones_may_be_used(templates: Templates) -> None:
    found = templates.render(
        '{% from "mesh/route.json.j2" import no_stream_limit %}\n'
        "{% macro pair(key, value) %}{{ key | tojson }}: {{ value | tojson }}{% endmacro %}\n"
        '{ {{ pair("a", "<b>") }}, {{ pair("c", name) }}, "limit": {{ no_stream_limit() }} }\n',
        name="d",
    )
    assert (found["a"], found["c"]) == ("<b>", "d")
    assert "max_stream_duration" in found["limit"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{"a":\n {{ nobody | tojson }}}', "template own.j2:2: 'nobody' is undefined"),
        ('{"a":\n {{ nobody }}}', "template own.j2:2: 'nobody' is undefined"),
        ('{"a":\n\n {{ node.zone | tojson }}}', "template own.j2:3: 'dict object' has no attribute 'zone'"),
        ('{"a":\n {{ name }}}', "template own.j2:2: value 'text' is printed without the tojson filter"),
        ('{"a": {{ number }}}', "template own.j2:1: value 5 is printed without the tojson filter"),
        ('{"a":\n {{ thing | tojson }}}', "template own.j2:2: <object object at "),
        ('{"a":\n {{ 1 // 0 }}}', "template own.j2:2: integer division or modulo by zero"),
        ('{"a":\n {% if x %}}', "template own.j2:2: Unexpected end of template."),
        ('{"a":\n {{ name | nofilter }}}', "template own.j2:2: No filter named 'nofilter'"),
        ('{"a":\n {{ name', "template own.j2:2: unexpected end of template"),
        ('{"a":\n {% include "missing.j2" %}}', "template "),
        ('{"a": 1,}', "template own.j2: the result is not JSON: Expecting property name"),
        ("", "template own.j2: the result is not JSON: Expecting value"),
    ],
)
def test_each_kind_of_error_is_told_with_file_and_line(templates: Templates, text: str, error: str) -> None:
    told = templates.error(text, name="text", number=5, node={}, thing=object())
    assert told.startswith(error)
    assert "\n" not in told


def test_what_is_not_json_is_quoted_where_it_breaks(templates: Templates) -> None:
    assert templates.error('{"clusters": [{{ 1 | tojson }},]}').endswith("""near '{"clusters": [1,]}'""")


def test_a_missing_template_is_told_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(TemplateError) as refused:
        Renderer().render(str(tmp_path / "no.j2"), {})
    assert str(refused.value) == f"template {tmp_path}/no.j2: can't be read: No such file or directory"


def test_templates_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match="can't be read: Is a directory"):
        Renderer().render(str(tmp_path), {})
    (tmp_path / "binary.j2").write_bytes(b"\xff\xfe")
    with pytest.raises(TemplateError, match="can't be read: 'utf-8' codec"):
        Renderer().render(str(tmp_path / "binary.j2"), {})


def test_an_include_that_is_missing_names_what_is_missing(templates: Templates) -> None:
    told = templates.error('{% include "missing.j2" %}')
    assert told == f"template {templates_directory()}/missing.j2: can't be read: No such file or directory"


def test_a_macro_that_forgets_the_filter_is_told_too(templates: Templates) -> None:
    text = '{% macro m(x) %}\n"{{ x }}"\n{% endmacro %}\n{"a": {{ m("b") }}}'
    assert templates.error(text) == "template own.j2:2: value 'b' is printed without the tojson filter"


# The cache of compiled templates


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that counts as the shipped templates, with one in it."""
    root = tmp_path / "shipped"
    root.mkdir()
    (root / "one.j2").write_text('{"version": 1}')
    monkeypatch.setattr(render, "templates_directory", lambda: root)
    return root


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The names of templates that jinja compiled."""
    names: list[str | None] = []
    compile_template: Callable[..., Any] = jinja2.Environment.compile

    def noting(self: jinja2.Environment, source: Any, name: str | None = None, *args: Any, **more: Any) -> Any:
        names.append(name)
        return compile_template(self, source, name, *args, **more)

    monkeypatch.setattr(jinja2.Environment, "compile", noting)
    return names


def cached(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "__pycache__").glob("*"))


def test_the_next_renderer_loads_what_the_first_compiled(shipped: Path, compiled: list[str | None]) -> None:
    assert Renderer().render("one.j2", {}) == {"version": 1}
    assert compiled == ["one.j2"]
    assert len(cached(shipped)) == 1
    assert Renderer().render("one.j2", {}) == {"version": 1}
    assert compiled == ["one.j2"]


def test_a_changed_source_is_noticed(shipped: Path, compiled: list[str | None]) -> None:
    Renderer().render("one.j2", {})
    (shipped / "one.j2").write_text('{"version": 2}')
    assert Renderer().render("one.j2", {}) == {"version": 2}
    assert compiled == ["one.j2"] * 2
    assert Renderer().render("one.j2", {}) == {"version": 2}
    assert compiled == ["one.j2"] * 2
    assert len(cached(shipped)) == 1


@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_a_spoiled_file_is_compiled_anew(shipped: Path, compiled: list[str | None], content: bytes) -> None:
    Renderer().render("one.j2", {})
    (shipped / "__pycache__" / cached(shipped)[0]).write_bytes(content)
    assert Renderer().render("one.j2", {}) == {"version": 1}
    assert compiled == ["one.j2"] * 2


def test_where_nothing_can_be_written_each_start_compiles(shipped: Path, compiled: list[str | None]) -> None:
    (shipped / "__pycache__").write_text("in the way: permissions would not stop root")
    for _ in range(2):
        assert Renderer().render("one.j2", {}) == {"version": 1}
    assert compiled == ["one.j2"] * 2
    assert (shipped / "__pycache__").is_file()


def test_own_templates_are_never_kept(shipped: Path, compiled: list[str | None], templates: Templates) -> None:
    own = templates.write('{"own": true}')
    for _ in range(2):
        assert Renderer().render(own, {}) == {"own": True}
    assert compiled == [own] * 2
    assert cached(shipped) == []
    assert [path.name for path in templates.directory.iterdir() if path != shipped] == ["own.j2"]


def test_an_image_compiles_all_that_is_shipped(shipped: Path, compiled: list[str | None]) -> None:
    (shipped / "mesh").mkdir()
    (shipped / "mesh" / "two.j2").write_text("{}")
    (shipped / "notes.txt").write_text("{% no template %}")
    Renderer().compile_shipped()
    assert compiled == ["mesh/two.j2", "one.j2"]
    Renderer().render("mesh/two.j2", {})
    assert len(compiled) == 2


def test_the_cache_of_another_place_is_not_taken_for_ours(shipped: Path, tmp_path: Path) -> None:
    Renderer().render("one.j2", {})
    moved = tmp_path / "moved"
    shutil.copytree(shipped, moved)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(render, "templates_directory", lambda: moved)
        (moved / "one.j2").write_text('{"a":\n {{ nobody }}}')
        with pytest.raises(TemplateError) as refused:
            Renderer().render("one.j2", {})
    assert str(refused.value) == f"template {moved}/one.j2:2: 'nobody' is undefined"


# No text breaks the document

RENDERER = Renderer()
TEXTS = st.text(max_size=30)
MAPS = st.dictionaries(TEXTS, TEXTS, max_size=3)
NASTY = st.sampled_from(
    ['"', "\\", "</script>", "{{ 7 * 7 }}", "{% raw %}", "\x00", "\u2028", "'", "\n", "\ud7ff", "&<>"]
)


@given(labels=MAPS, annotations=MAPS, texts=st.lists(TEXTS | NASTY, min_size=8, max_size=8), tags=st.lists(TEXTS))
def test_any_text_anywhere_comes_out_as_it_went_in(
    labels: dict[str, str], annotations: dict[str, str], texts: list[str], tags: list[str]
) -> None:
    name, service, metadata, runtime, prefix, path, socket, outlier = texts
    settings = told(
        {
            "serviceCluster": f"c{service}",
            "configPath": f"/{path}x",
            "runtimeValues": {f"k{runtime}": f"v{runtime}"},
            "proxyStatsMatcher": {"inclusionPrefixes": [f"p{prefix}"]},
            "extraStatTags": tags,
            "proxyMetadata": {"ISTIO_META_FROM_CONFIG": metadata},
        },
        env={"POD_NAME": name, "ISTIO_META_FROM_ENV": metadata, "WORKLOAD_IDENTITY_SOCKET_FILE": socket},
        outlier_log_path=f"o{outlier}",
    )
    document = RENDERER.render(TEMPLATE, context_of(settings, labels=labels, annotations=annotations))
    node = document["node"]
    assert node["id"] == f"sidecar~10.1.2.3~{name}.~.svc.cluster.local"
    assert node["cluster"] == f"c{service}"
    assert node["metadata"].get("LABELS", {}) == labels
    assert node["metadata"].get("ANNOTATIONS", {}) == annotations
    assert node["metadata"]["FROM_ENV"] == node["metadata"]["FROM_CONFIG"] == metadata
    assert document["layered_runtime"]["layers"][0]["static_layer"][f"k{runtime}"] == f"v{runtime}"
    assert document["stats_config"]["stats_matcher"]["inclusion_list"]["patterns"][1] == {
        "prefix": f"p{prefix}".replace("{pod_ip}", "10.1.2.3")
    }
    found = [tag["tag_name"] for tag in document["stats_config"]["stats_tags"]][9:-7]
    assert found == list(dict.fromkeys(tag.strip() for tag in tags if tag.strip()))
    pipes = [
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["pipe"]["path"]
        for cluster in document["static_resources"]["clusters"]
        if cluster["name"] in ("sds-grpc", "xds-grpc")
    ]
    assert pipes == [f"./var/run/secrets/workload-spiffe-uds/{socket}", f"/{path}x/XDS"]
    assert document["cluster_manager"]["outlier_detection"]["event_log_path"] == f"o{outlier}"
    assert json.loads(json.dumps(document)) == document


@given(st.lists(TEXTS | NASTY, min_size=6, max_size=6), st.lists(TEXTS | NASTY, min_size=1, max_size=3))
def test_any_text_in_upstreams_and_annotations_comes_out_as_it_went_in(texts: list[str], sans: list[str]) -> None:
    sni, root, chain, key, prefix, suffix = texts
    tls = {
        "mode": "MUTUAL",
        "sni": f"s{sni}",
        "caCertificates": f"r{root}",
        "clientCertificate": f"c{chain}",
        "privateKey": f"k{key}",
        "subjectAltNames": sans,
    }
    settings = told(
        {
            "tracing": {"zipkin": {"address": "z:1"}, "tlsSettings": tls},
            "envoyMetricsService": {"address": "m:1", "tlsSettings": tls},
        },
        annotations={
            "sidecar.istio.io/statsInclusionSuffixes": f"x{suffix}".replace(",", ";"),
            "sidecar.istio.io/statsHistogramBuckets": json.dumps({prefix: [1, 2.5]}),
        },
    )
    document = RENDERER.render(TEMPLATE, context_of(settings))
    for name, alpn in (("zipkin", []), ("envoy_metrics_service", ["h2"])):
        cluster = next(each for each in document["static_resources"]["clusters"] if each["name"] == name)
        found = cluster["transport_socket"]["typed_config"]
        common = found["common_tls_context"]
        assert (found["sni"], common["alpn_protocols"]) == (f"s{sni}", alpn)
        assert common["tls_certificate_sds_secret_configs"][0]["name"] == f"file-cert:c{chain}~k{key}"
        validation = common["combined_validation_context"]
        assert validation["validation_context_sds_secret_config"]["name"] == f"file-root:r{root}"
        wanted = [{"exact": san} for san in sans]
        assert validation["default_validation_context"] == {"match_subject_alt_names": wanted}
    stats = document["stats_config"]
    assert stats["histogram_bucket_settings"] == [{"match": {"prefix": prefix}, "buckets": [1, 2.5]}]
    suffixes = [each["suffix"] for each in stats["stats_matcher"]["inclusion_list"]["patterns"] if "suffix" in each]
    assert suffixes[0] == f"x{suffix}".replace(",", ";").replace("{pod_ip}", "10.1.2.3")
    assert json.loads(json.dumps(document)) == document


# What the shipped template makes of its variables, where the golden documents do not show it


def listeners(document: Any) -> dict[str, Any]:
    return {listener["name"]: listener for listener in document["static_resources"]["listeners"]}


def filters(listener: Any) -> list[str]:
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return [each["name"] for each in manager["http_filters"]]


def test_compression_of_metrics() -> None:
    kinds = ["brotli", "zstd", "gzip"]
    names = [f"envoy.filters.http.compressor.{kind}" for kind in kinds]
    found = listeners(rendered())
    assert filters(found["0.0.0.0_15090"]) == [*names, "envoy.filters.http.router"]
    assert filters(found["0.0.0.0_15021"]) == ["envoy.filters.http.router"]
    assert filters(listeners(rendered({"statsCompression": False}))["0.0.0.0_15090"]) == ["envoy.filters.http.router"]


def test_metrics_for_the_own_host_bind_loopback() -> None:
    found = listeners(rendered({"proxyMetadata": {"METRICS_LOCALHOST_ACCESS_ONLY": "true"}}))
    assert list(found) == ["127.0.0.1_15090", "0.0.0.0_15021"]
    assert found["127.0.0.1_15090"]["address"]["socket_address"]["address"] == "127.0.0.1"


def test_the_proxy_protocol_on_the_readiness_listener_only() -> None:
    found = listeners(rendered(env={"ENVOY_STATUS_PORT_ENABLE_PROXY_PROTOCOL": "true"}))
    assert "listener_filters" not in found["0.0.0.0_15090"]
    (only,) = found["0.0.0.0_15021"]["listener_filters"]
    assert only["typed_config"]["allow_requests_without_proxy_protocol"] is True


def test_ports_of_listeners_and_targets() -> None:
    document = rendered(
        {"statusPort": 16020, "proxyAdminPort": 16000},
        env={"ENVOY_STATUS_PORT": "16021", "ENVOY_PROMETHEUS_PORT": "16090"},
    )
    assert list(listeners(document)) == ["0.0.0.0_16090", "0.0.0.0_16021"]
    ports = {
        cluster["name"]: cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
        for cluster in document["static_resources"]["clusters"][:2]
    }
    assert ports["agent"]["socket_address"]["port_value"] == 16020
    assert ports["prometheus_stats"]["socket_address"]["port_value"] == 16000
    assert document["admin"]["address"]["socket_address"]["port_value"] == 16000


@pytest.mark.parametrize("discovers", [True, False])
def test_metadata_discovery_is_the_first_extension(discovers: bool) -> None:
    document = rendered(env={"ISTIO_META_ENABLE_HBONE": str(discovers).lower()})
    names = [extension["name"] for extension in document["bootstrap_extensions"]]
    assert names == ["metadata_discovery"] * discovers + ["envoy.bootstrap.internal_listener"]


def test_outlier_events_are_logged_where_asked() -> None:
    assert "cluster_manager" not in rendered()
    found = rendered(outlier_log_path="/dev/stdout")["cluster_manager"]
    assert found == {
        "outlier_detection": {"event_log_path": "/dev/stdout"},
        "enable_deferred_cluster_creation": True,
    }


def test_every_variable_of_the_context_can_be_printed() -> None:
    for name, value in context().items():
        assert json.loads(json.dumps(value)) == value, name
