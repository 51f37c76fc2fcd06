"""Whose Envoy it is: read from the list of extensions that Envoy writes at its start."""

import subprocess
from pathlib import Path

import pytest

from pilot_agent.envoy.build import Build, extensions_argv, leaves_istio_parts_out, read_build, version_argv
from tests.support.envoy_binary import envoy_binary

ENVOY = Path("/usr/local/bin/envoy")
STOCK = Build(ENVOY, frozenset({"envoy.bootstrap.internal_listener", "envoy.filters.http.router"}))
ISTIO = Build(ENVOY, STOCK.extensions | {"envoy.bootstrap.workload_discovery", "istio_stats"})
SILENT = Build(ENVOY, frozenset())


def test_the_real_envoy_is_a_stock_one() -> None:
    binary = envoy_binary()
    done = subprocess.run(extensions_argv(binary), capture_output=True, text=True, timeout=30, check=True)
    build = read_build(binary, done.stderr)
    assert {
        "envoy.bootstrap.internal_listener",
        "envoy.tracers.zipkin",
        "envoy.filters.http.router",
    } <= build.extensions
    assert len(build.extensions) > 300
    assert not build.is_istio


def test_the_real_envoy_tells_its_version() -> None:
    done = subprocess.run(version_argv(envoy_binary()), capture_output=True, text=True, timeout=30, check=True)
    assert "/RELEASE/" in done.stdout


def test_istios_extensions_make_it_istios() -> None:
    lines = (
        "[info] statically linked extensions:\n"
        "[2026-01-01 00:00:00.000][1][info][main] [server.cc:1]   envoy.bootstrap: envoy.bootstrap.internal_listener, "
        "envoy.bootstrap.workload_discovery\n"
    )
    build = read_build(ENVOY, lines)
    assert build.extensions == {"envoy.bootstrap.internal_listener", "envoy.bootstrap.workload_discovery"}
    assert build.is_istio


def test_the_agents_own_log_format_is_read_too() -> None:
    line = (
        "2026-01-01T00:00:00.000000Z\tinfo\tenvoy main server.cc:467\t  envoy.bootstrap: istio.a, envoy.b\tthread=1\n"
    )
    assert read_build(ENVOY, line).extensions == {"istio.a", "envoy.b"}


@pytest.mark.parametrize("output", ["", "no Envoy at all", "error: not: a list!"])
def test_a_binary_that_lists_nothing_is_unknown(output: str) -> None:
    assert not read_build(ENVOY, output).is_known


@pytest.mark.parametrize(
    ("choice", "build", "is_left_out"),
    [
        ("auto", None, False),
        ("auto", SILENT, False),
        ("auto", ISTIO, False),
        ("auto", STOCK, True),
        ("true", ISTIO, True),
        ("true", None, True),
        ("false", STOCK, False),
    ],
)
def test_what_leaves_istios_parts_out(choice: str, build: Build | None, is_left_out: bool) -> None:
    assert leaves_istio_parts_out(choice, build) is is_left_out
