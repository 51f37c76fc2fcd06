"""The parser of flags, the tables, and that click's help and completion, made from them, say the same."""

from random import Random
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.commands.flags import LOGGING_FLAGS, Flag, log_options, show
from pilot_agent.commands.parsing import Parsed, parse
from pilot_agent.commands.proxy_flags import PROXY_FLAGS, proxy_flags
from pilot_agent.commands.root import option
from pilot_agent.errors import EXIT_SETTINGS, UsageError
from pilot_agent.log import LogOptions
from pilot_agent.settings.model import ProxyFlags
from pilot_agent.values import Duration

ALL = (*PROXY_FLAGS, *LOGGING_FLAGS)
TEXT = Flag("text", "text_value", "before", "a text")
FEW = (
    TEXT,
    Flag("choice", "choice", "a", "one of two", choices=("a", "b")),
    Flag("number", "number", 5, "a number", least=1),
    Flag("onByDefault", "on", True, "a switch"),
    Flag("offByDefault", "off", False, "a switch"),
    Flag("duration", "duration", Duration.of(5), "a duration"),
    Flag("target", "targets", ("stdout",), "targets"),
)
DEFAULTS: dict[str, Any] = {flag.attribute: flag.default for flag in FEW}


def parsed(*args: str) -> Parsed:
    return parse(FEW, args)


def changed(*args: str) -> dict[str, Any]:
    """What differs from the defaults; there must be nothing but flags."""
    found = parsed(*args)
    assert (found.words, found.unknown) == ([], [])
    return {name: value for name, value in found.values.items() if value != DEFAULTS[name]}


def test_without_arguments_the_defaults_count() -> None:
    assert parsed() == Parsed(DEFAULTS, [], [], frozenset(), False)


@pytest.mark.parametrize(
    ("args", "values"),
    [
        (["--text", "x"], {"text_value": "x"}),
        (["--text=x"], {"text_value": "x"}),
        (["--text="], {"text_value": ""}),
        (["--text", ""], {"text_value": ""}),
        (["--text=a=b"], {"text_value": "a=b"}),
        (["--text", "--number"], {"text_value": "--number"}),
        (["--text", "--"], {"text_value": "--"}),
        (["--text", "x", "--text", "y"], {"text_value": "y"}),
        (["--choice", "b"], {"choice": "b"}),
        (["--number", "7"], {"number": 7}),
        (["--number=1"], {"number": 1}),
        (["--onByDefault=false"], {"on": False}),
        (["--onByDefault=F"], {"on": False}),
        (["--onByDefault"], {}),
        (["--no-onByDefault"], {"on": False}),
        (["--no-onByDefault", "--onByDefault"], {}),
        (["--offByDefault"], {"off": True}),
        (["--offByDefault=1"], {"off": True}),
        (["--offByDefault", "--no-offByDefault"], {}),
        (["--duration", "1m30s"], {"duration": Duration.of(90)}),
        (["--duration=250ms"], {"duration": Duration.of(0.25)}),
        (["--duration=0"], {"duration": Duration(0)}),
        (["--target", "a"], {"targets": ("a",)}),
        (["--target", "a", "--target=b", "--target", "a"], {"targets": ("a", "b", "a")}),
        (["--target", "stdout", "--target", "b"], {"targets": ("stdout", "b")}),
        (["--text", "x", "--number=2", "--offByDefault"], {"text_value": "x", "number": 2, "off": True}),
    ],
)
def test_forms(args: list[str], values: dict[str, Any]) -> None:
    assert changed(*args) == values


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (["--text"], "flag needs an argument: --text"),
        (["--number", "5", "--duration"], "flag needs an argument: --duration"),
        (["--number", "many"], "invalid value for --number: 'many' is not an integer"),
        (["--number="], "invalid value for --number: '' is not an integer"),
        (["--number=0"], "invalid value for --number: 0 is too small: the least is 1"),
        (["--choice", "c"], "invalid value for --choice: 'c' is not one of a, b"),
        (["--choice="], "invalid value for --choice: '' is not one of a, b"),
        (
            ["--offByDefault=yes"],
            "invalid value for --offByDefault: 'yes' is not a boolean: write true or false",
        ),
        (["--offByDefault="], "invalid value for --offByDefault: '' is not a boolean: write true or false"),
        (
            ["--duration=5"],
            "invalid value for --duration: '5' is not a duration: "
            "write a number with a unit, such as 5s, 250ms or 1m30s",
        ),
        (["--duration", "-5s"], "invalid value for --duration: '-5s' is negative"),
    ],
)
def test_errors_name_the_flag_and_the_value(args: list[str], error: str) -> None:
    with pytest.raises(UsageError) as refused:
        parsed(*args)
    assert str(refused.value) == error
    assert refused.value.exit_code == EXIT_SETTINGS


@pytest.mark.parametrize(
    ("args", "words", "unknown"),
    [
        (["sidecar"], ["sidecar"], []),
        (["sidecar", "more", "--number", "5", "words"], ["sidecar", "more", "words"], []),
        (["--unheard", "--unheard=5", "-x"], [], ["--unheard", "--unheard=5", "-x"]),
        (["sidecar", "--unheard", "5"], ["sidecar", "5"], ["--unheard"]),
        (["--no-text"], [], ["--no-text"]),
        (["--no-unheard"], [], ["--no-unheard"]),
        (["--TEXT", "x"], ["x"], ["--TEXT"]),
        (["-text", "x"], ["x"], ["-text"]),
        (["--tex", "x"], ["x"], ["--tex"]),
        (["-"], ["-"], []),
        ([""], [""], []),
        (["--", "--text", "--unheard", "--"], ["--text", "--unheard", "--"], []),
        (["a", "--"], ["a"], []),
    ],
)
def test_words_and_unknown_flags_are_kept_apart(args: list[str], words: list[str], unknown: list[str]) -> None:
    found = parsed(*args)
    assert (found.words, found.unknown) == (words, unknown)
    assert found.values == DEFAULTS


def test_the_arguments_are_left_as_they_were() -> None:
    args = ["--text", "x", "word"]
    parse(FEW, args)
    assert args == ["--text", "x", "word"]


def written(name: str, value: object, has_equals: bool) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}={value}"] if has_equals else [f"--{name}" if value else f"--no-{name}"]
    return [f"--{name}={value}"] if has_equals else [f"--{name}", str(value)]


@given(
    st.lists(
        st.tuples(st.just("text"), st.text())
        | st.tuples(st.just("number"), st.integers(min_value=1))
        | st.tuples(st.just("onByDefault"), st.booleans())
        | st.tuples(st.just("duration"), st.integers(min_value=0, max_value=10**15).map(Duration))
        | st.tuples(st.just("target"), st.text()),
    ),
    st.randoms(use_true_random=False),
)
def test_any_values_in_any_form_are_read_back(given_values: list[tuple[str, Any]], random: Random) -> None:
    args = [word for name, value in given_values for word in written(name, value, random.random() < 0.5)]
    found = parsed(*args)
    assert (found.words, found.unknown) == ([], [])
    last: dict[str, Any] = dict(given_values)
    targets = tuple(value for name, value in given_values if name == "target")
    assert found.values == DEFAULTS | {
        flag.attribute: targets if flag.name == "target" else last[flag.name] for flag in FEW if flag.name in last
    }


@pytest.mark.parametrize(
    ("args", "asks"),
    [
        ([], False),
        (["-h"], True),
        (["sidecar", "--help"], True),
        (["--unheard", "-h", "--number=x"], True),
        (["--helpful"], False),
        (["help"], False),
        (["--text", "-h"], False),
        (["--", "--help"], False),
    ],
)
def test_asking_for_help(args: list[str], asks: bool) -> None:
    assert parsed(*args).asks_for_help is asks


SHORT = (
    Flag("short", "short", False, "a switch", short="s"),
    Flag("quiet", "quiet", False, "a switch", short="q"),
    Flag("output", "output", "", "a text", choices=("json", "yaml"), short="o"),
    Flag("stock", "stock", "auto", "a text that may stand alone", choices=("auto", "true", "false"), bare="true"),
)


@pytest.mark.parametrize(
    ("args", "values"),
    [
        (["-s"], {"short": True}),
        (["-s=false", "-q=1"], {"short": False, "quiet": True}),
        (["-sq"], {"short": True, "quiet": True}),
        (["-o", "json"], {"output": "json"}),
        (["-ojson"], {"output": "json"}),
        (["-o=json"], {"output": "json"}),
        (["-sojson"], {"short": True, "output": "json"}),
        (["--output", "yaml", "-o", "json"], {"output": "json"}),
        (["--stock"], {"stock": "true"}),
        (["--stock=false"], {"stock": "false"}),
        (["--stock=auto"], {"stock": "auto"}),
    ],
)
def test_short_flags_and_flags_that_may_stand_alone(args: list[str], values: dict[str, Any]) -> None:
    found = parse(SHORT, args)
    defaults = {"short": False, "quiet": False, "output": "", "stock": "auto"}
    assert (found.values, found.words, found.unknown) == (defaults | values, [], [])
    assert found.given == values.keys()


def test_a_flag_that_may_stand_alone_takes_no_following_word() -> None:
    found = parse(SHORT, ["--stock", "false"])
    assert (found.values["stock"], found.words) == ("true", ["false"])


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (["-o"], "flag needs an argument: -o"),
        (["-oxml"], "invalid value for --output: 'xml' is not one of json, yaml"),
        (["--stock=perhaps"], "invalid value for --stock: 'perhaps' is not one of auto, true, false"),
        (["-s=maybe"], "invalid value for --short: 'maybe' is not a boolean: write true or false"),
    ],
)
def test_errors_of_short_flags(args: list[str], error: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(SHORT, args)
    assert str(refused.value) == error


@pytest.mark.parametrize("args", [["-x"], ["-sx"], ["-s", "-xs"]])
def test_an_unknown_letter_makes_its_word_unknown(args: list[str]) -> None:
    assert parse(SHORT, args).unknown == args[-1:]


def test_help_may_share_a_dash() -> None:
    assert parse(SHORT, ["-sh"]).asks_for_help
    assert not parse(SHORT, ["-hs"]).asks_for_help


def test_given_are_the_flags_on_the_command_line_even_with_their_default() -> None:
    assert parsed("--number=5", "word", "--unheard", "--target", "stdout").given == {"number", "targets"}
    assert parsed().given == frozenset()


@pytest.mark.parametrize(
    ("default", "shown"),
    [
        (True, "true"),
        (False, "false"),
        ("", "empty"),
        ("x", "x"),
        (0, "0"),
        (Duration.of(90), "90s"),
        (Duration(0), "0s"),
        (("stdout",), "stdout"),
        (("a", "b"), "a, b"),
    ],
)
def test_how_defaults_are_shown(default: object, shown: str) -> None:
    assert show(default) == shown


# The tables


def test_every_field_of_the_proxys_flags_has_its_flag_with_the_same_default() -> None:
    defaults = ProxyFlags()._asdict()
    del defaults["role"]  # a word, not a flag
    assert {flag.attribute: flag.default for flag in PROXY_FLAGS} == defaults


def test_names_and_attributes_are_unique() -> None:
    for names in ([flag.name for flag in ALL], [flag.attribute for flag in ALL]):
        assert len(names) == len(set(names))


def test_the_flags_of_istio_are_there() -> None:
    istio = (
        "domain meshConfig stsPort tokenManagerPlugin serviceCluster proxyLogLevel proxyComponentLogLevel concurrency "
        "templateFile outlierLogPath profiling log_as_json log_target log_output_level log_stacktrace_level log_caller "
        "vklog"
    )
    defaults = parse(ALL, []).values
    assert set(istio.split()) <= {flag.name for flag in ALL}
    assert (defaults["mesh_config"], defaults["service_cluster"]) == ("./etc/istio/config/mesh", "istio-proxy")
    assert (defaults["proxy_log_level"], defaults["profiling"]) == ("warning", True)


def test_the_call_of_the_injector() -> None:
    args = (
        "sidecar --domain shop.svc.cluster.local --proxyLogLevel=warning --proxyComponentLogLevel=misc:error "
        "--log_output_level=default:info --concurrency 2 --log_as_json"
    ).split()
    found = parse(ALL, args)
    assert (found.words, found.unknown) == (["sidecar"], [])
    assert found.values["domain"] == "shop.svc.cluster.local"
    assert found.values["proxy_component_log_level"] == "misc:error"
    assert found.values["concurrency"] == 2
    assert log_options(found.values).as_json is True


def test_logging_flags_make_log_options() -> None:
    found = parse(ALL, ["--log_target", "stderr", "--log_target=/x", "--log_caller", "all", "--vklog", "9"])
    assert log_options(found.values) == LogOptions(
        targets=("stderr", "/x"), callers="all", levels="default:info,grpc:none"
    )


# click, which makes help and completion


def command() -> click.Command:
    return click.Command("all", params=[option(flag) for flag in ALL])


def test_click_knows_the_same_names() -> None:
    options = [each for each in command().params if isinstance(each, click.Option)]
    names = {name: each for each in options for name in (*each.opts, *each.secondary_opts)}
    assert {name for name in names if not name.startswith("--no-")} == {f"--{flag.name}" for flag in ALL}
    assert {name for name in names if name.startswith("--no-")} == {
        f"--no-{flag.name}" for flag in ALL if flag.is_boolean
    }
    for flag in ALL:
        assert names[f"--{flag.name}"].name == flag.attribute


def test_clicks_help_tells_every_flag_effect_and_default() -> None:
    made = command()
    text = " ".join(made.get_help(click.Context(made, terminal_width=10_000, max_content_width=10_000)).split())
    for flag in ALL:
        assert f"--{flag.name}" in text
        assert f"(default {show(flag.default)})" in flag.help
        assert " ".join(flag.help.split()) in text


def test_click_completes_the_choices() -> None:
    made = command()
    context = click.Context(made)
    parameter = next(each for each in made.params if each.name == "on_envoy_exit")
    assert [item.value for item in parameter.shell_complete(context, "")] == ["restart", "exit"]
    assert [item.value for item in parameter.shell_complete(context, "e")] == ["exit"]


@pytest.mark.parametrize(
    ("args", "stock"),
    [([], "auto"), (["--stockEnvoy"], "true"), (["--stockEnvoy=false"], "false"), (["--stockEnvoy", "router"], "true")],
)
def test_stock_envoy_may_stand_alone(args: list[str], stock: str) -> None:
    found = parse(PROXY_FLAGS, [*args, "--deepMerge"])
    assert (found.values["stock_envoy"], found.values["deep_merge"]) == (stock, True)
    assert proxy_flags(found) == ProxyFlags(
        role=found.words[0] if found.words else "sidecar", stock_envoy=stock, deep_merge=True
    )
