"""The documentation names what the code has: flags, variables, codes, states, metrics; its links lead somewhere."""

import re
from pathlib import Path

import pytest

from pilot_agent import errors
from pilot_agent.bootstrap.context import build_context
from pilot_agent.commands.flags import LOGGING_FLAGS
from pilot_agent.commands.proxy_flags import PROXY_FLAGS
from pilot_agent.metrics.account import ScrapeAccount
from pilot_agent.metrics.own import AgentFacts, EnvoyExit, OwnMetrics
from pilot_agent.node.metadata import Node
from pilot_agent.settings.environment import VARIABLES
from pilot_agent.settings.model import PROXY_CONFIG_FIELDS, ProxyFlags
from pilot_agent.settings.sources import load
from pilot_agent.supervise.lifecycle import TRANSITIONS
from pilot_agent.supervise.postmortem import RESTART_REASONS

PROJECT = Path(__file__).resolve().parent.parent.parent
PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").rglob("*.md"))]


def page(name: str) -> str:
    return (PROJECT / "docs" / name).read_text()


def row_of(text: str, first_cell: str) -> str:
    return next((line for line in text.splitlines() if line.startswith(f"| {first_cell} |")), "")


@pytest.mark.parametrize("flag", [*PROXY_FLAGS, *LOGGING_FLAGS], ids=lambda flag: str(flag.name))
def test_every_flag_is_in_the_settings_page_with_its_effect(flag: object) -> None:
    name, effect = getattr(flag, "name"), getattr(flag, "effect")  # noqa: B009 - a parameter of several types
    assert effect in row_of(page("settings.md"), f"`--{name}`")


def test_every_variable_and_field_is_in_the_settings_page() -> None:
    text = page("settings.md")
    for variable in VARIABLES:
        assert variable.effect in row_of(text, f"`{variable.name}`"), variable.name
    for field in PROXY_CONFIG_FIELDS:
        assert f"`{field}`" in text, field


def test_every_exit_code_is_in_its_page() -> None:
    text = page("exit-codes.md")
    for name in vars(errors):
        if name.startswith("EXIT_"):
            assert f"`{name}`" in text, name
    assert row_of(text, "255") and row_of(text, "128 + n")


def test_the_transitions_are_those_of_the_lifecycle_page() -> None:
    text = page("lifecycle.md")
    for state, targets in TRANSITIONS.items():
        cells = row_of(text, state.value).split("|")[2].strip()
        assert {each.strip() for each in cells.split(",") if each.strip()} == {each.value for each in targets}


def test_every_metric_is_in_its_page() -> None:
    facts = AgentFacts(
        startup_seconds=1.0,
        start_phase_seconds={"ready": 1.0},
        envoy_restarts=dict.fromkeys(RESTART_REASONS, 0),
        envoy_last_exit=EnvoyExit(137, "SIGKILL", "crash"),
        broken_files=("a.yaml",),
    )
    rendered = OwnMetrics(lambda: facts, ScrapeAccount()).render().decode()
    text = page("metrics.md")
    names = set(re.findall(r"^(istio_agent_\w+)", rendered, re.MULTILINE))
    assert len(names) > 10
    for name in names:
        assert re.search(rf"^\| `{name}[`{{]", text, re.MULTILINE), name
    for reason in RESTART_REASONS:
        assert f"`{reason}`" in text, reason


def test_every_template_variable_is_in_the_bootstrap_page() -> None:
    node = Node("id", "cluster", {}, {}, ["10.0.0.1"])
    for name in build_context(load(ProxyFlags(mesh_config="/nowhere"), {}, {}), node):
        assert f"`{name}`" in page("bootstrap.md"), name


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text()):
        if not re.match(r"[a-z]+:", target):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_ci_runs_the_test_command_of_the_readme() -> None:
    section = (PROJECT / "README.md").read_text().split("## Test")[1]
    command = section.split("```sh\n")[1].split("\n")[0]
    assert command == "make test"
    assert re.search(rf"\b{command}\b", (PROJECT / ".ci" / "run").read_text())
