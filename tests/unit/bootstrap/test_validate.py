"""Asking Envoy what it thinks of a bootstrap, and quoting the answer. The samples are Envoy 1.40's own output."""

import json

import pytest

from pilot_agent.bootstrap.validate import (
    LONGEST_ARGUMENT,
    LONGEST_QUOTE,
    checks,
    judge,
    own_words,
    refusal_in,
    validation_argv,
)
from pilot_agent.errors import EnvoyRefused

HEAD = "[2026-11-24 01:35:33.134][24177][critical][main] [source/server/config_validation/server.cc:76] "
UNKNOWN_ENUM = (
    f"{HEAD}error initializing configuration '1.json': Protobuf message (type envoy.config.bootstrap.v3.Bootstrap "
    "reason INVALID_ARGUMENT: unknown enum value: 'NOPE') has unknown fields\n"
)
OUR_FORMAT = (
    "2026-11-24T01:35:33.399254Z\tcritical\tenvoy main source/server/config_validation/server.cc:76\t"
    "error initializing configuration '3.json': malformed IP address: nowhere\tthread=24193\n"
)
WARNING = (
    "[2026-11-24 01:35:33.130][24177][warning][config] [./source/server/options_impl_platform_linux.h:1] no cpus\n"
)
PARSE_ERROR = "PARSE ERROR: Argument: --badflag\n             Couldn't find match for argument\n"


def test_the_command_that_only_checks() -> None:
    assert validation_argv(["/bin/envoy", "-c", "x"]) == [
        "/bin/envoy",
        "-c",
        "x",
        "--mode",
        "validate",
        "--disable-hot-restart",
    ]


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (
            UNKNOWN_ENUM,
            "error initializing configuration '1.json': Protobuf message (type envoy.config.bootstrap.v3.Bootstrap "
            "reason INVALID_ARGUMENT: unknown enum value: 'NOPE') has unknown fields",
        ),
        (OUR_FORMAT, "error initializing configuration '3.json': malformed IP address: nowhere"),
        (f"{WARNING}{OUR_FORMAT}", "error initializing configuration '3.json': malformed IP address: nowhere"),
        (f"{OUR_FORMAT}{WARNING}", "error initializing configuration '3.json': malformed IP address: nowhere"),
        (
            f"{HEAD}error initializing configuration '2.json': Unable to parse JSON as proto "
            '(INVALID_ARGUMENT: unexpected EOF): {"nope\n\n',
            "error initializing configuration '2.json': Unable to parse JSON as proto "
            '(INVALID_ARGUMENT: unexpected EOF): {"nope',
        ),
        (WARNING, "no cpus"),
        (PARSE_ERROR, "Couldn't find match for argument"),
        ("EnvoyException: it broke\nmore\n", "EnvoyException: it broke"),
        ("", "it said nothing"),
        ("\n \n", "it said nothing"),
    ],
)
def test_the_telling_line_is_found(output: str, words: str) -> None:
    assert own_words(output) == words


def test_a_protobuf_message_before_the_reason_is_left_out() -> None:
    output = (
        f"{HEAD}error initializing configuration 'x': Proto constraint validation failed "
        "(BootstrapValidationError.Admin): goo.gle/debugonly  \nadmin {\n  address {\n  }\n}\n: value is required\n"
    )
    assert own_words(output).endswith("value is required")
    assert "admin {" not in own_words(output)


def test_a_very_long_answer_is_cut() -> None:
    assert len(own_words("x" * 5000)) == LONGEST_QUOTE


def test_a_good_answer_is_no_error() -> None:
    judge(0, UNKNOWN_ENUM, "the bootstrap")


@pytest.mark.parametrize("code", [1, 139])
def test_a_refusal_carries_envoys_words(code: int) -> None:
    with pytest.raises(EnvoyRefused) as refused:
        judge(code, OUR_FORMAT, "the changed bootstrap")
    assert str(refused.value) == (
        f"Envoy refuses the changed bootstrap (exit code {code}): "
        "error initializing configuration '3.json': malformed IP address: nowhere"
    )


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("error `missing ): bad(` initializing config 'goo.gle/debugonly", "error `missing ): bad(`"),
        ("first; error `x` initializing config 'a'; later", "error `x`"),
        ("previous envoy process is still initializing", None),
        ("", None),
    ],
)
def test_what_a_started_envoy_says_of_its_bootstrap(words: str, reason: str | None) -> None:
    assert refusal_in(words) == reason


STATS = {"stats_matcher": {"inclusion_list": {"patterns": [{"safe_regex": {"regex": "a.*"}}]}}}


def test_what_a_document_says_of_stats_is_checked_alone_too() -> None:
    document = json.dumps({"admin": {}, "stats_config": STATS}).encode()
    first, second = checks(["/bin/envoy", "-c", "x"], document)
    assert first == validation_argv(["/bin/envoy", "-c", "x"])
    assert second[:3] == ["/bin/envoy", "--mode", "init_only"]
    assert json.loads(second[second.index("--config-yaml") + 1]) == {"stats_config": STATS}
    assert "-c" not in second


@pytest.mark.parametrize(
    "document",
    [b"{}", b"admin: yaml", b"[1]", json.dumps({"stats_config": {"x": "y" * LONGEST_ARGUMENT}}).encode()],
)
def test_without_stats_of_a_fitting_length_one_check_is_all(document: bytes) -> None:
    assert len(checks(["/bin/envoy"], document)) == 1
