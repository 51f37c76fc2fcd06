"""The documentation names what the code has, from flags to metrics, and draws its states; its links lead somewhere."""

import re
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest

from pilot_agent import errors
from pilot_agent.bootstrap.context import build_context
from pilot_agent.commands.table import COMMANDS
from pilot_agent.mesh import reading
from pilot_agent.mesh.reading import kinds, service_entry
from pilot_agent.node.metadata import Node
from pilot_agent.settings.model import ProxyFlags
from pilot_agent.settings.sources import load
from pilot_agent.supervise.lifecycle import TRANSITIONS
from pilot_agent.supervise.signals import HANDLED

PROJECT = Path(__file__).resolve().parent.parent.parent
PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").rglob("*.md"))]


def page(name: str) -> str:
    return (PROJECT / "docs" / name).read_text()


def row_of(text: str, first_cell: str) -> str:
    return next((line for line in text.splitlines() if line.startswith(f"| {first_cell} |")), "")


def test_every_command_is_in_the_readme() -> None:
    text = (PROJECT / "README.md").read_text()
    for command in COMMANDS:
        if not command.is_hidden:
            assert re.search(rf"^\| `pilot-agent {command.name}\b", text, re.MULTILINE), command.name


def test_every_exit_code_is_in_its_page() -> None:
    text = page("exit-codes.md")
    for name in vars(errors):
        if name.startswith("EXIT_"):
            assert f"`{name}` = {getattr(errors, name)}" in text, name
    assert row_of(text, "255") and row_of(text, "128 + n")


def test_the_transitions_are_those_of_the_lifecycle_page() -> None:
    text = page("lifecycle.md")
    for state, targets in TRANSITIONS.items():
        cells = row_of(text, state.value).split("|")[2].strip()
        assert {each.strip() for each in cells.split(",") if each.strip()} == {each.value for each in targets}


def test_the_drawing_has_the_same_transitions() -> None:
    drawing = page("lifecycle.md").split("```mermaid\n")[1].split("```")[0]
    arrows = re.findall(r"^\s*(\w+) --> (\w+)", drawing, re.MULTILINE)
    inner = {state for pair in re.findall(r"^ {8}(\w+) --> (\w+)", drawing, re.MULTILINE) for state in pair}
    drawn = {(start, end) for source, end in arrows for start in (inner if source == "running" else {source})}
    wanted = {(state.value, target.value) for state, targets in TRANSITIONS.items() for target in targets}
    assert {(start.replace("_", " "), end.replace("_", " ")) for start, end in drawn} == wanted


def test_every_handled_signal_is_in_the_lifecycle_page() -> None:
    rows = [line.split("|")[1] for line in page("lifecycle.md").splitlines() if line.startswith("| SIG")]
    for number in HANDLED:
        assert any(number.name in row.replace(",", "").split() for row in rows), number.name


def test_every_kind_and_field_of_local_mode_is_in_its_page() -> None:
    text = page("local-mode.md")
    names = [*kinds.KINDS, *service_entry.PROTOCOLS]
    for module in iter_modules(reading.__path__):
        found = vars(import_module(f"pilot_agent.mesh.reading.{module.name}"))
        names += [key for name, keys in found.items() if name.endswith("_KEYS") for key in keys]
    assert len(names) > 100
    for name in names:
        assert re.search(rf"`[^`\n]*\b{re.escape(name)}\b[^`\n]*`", text), name


def test_every_template_variable_is_in_the_bootstrap_page() -> None:
    node = Node("id", "cluster", {}, {}, {}, ["10.0.0.1"])
    for name in build_context(load(ProxyFlags(mesh_config="/nowhere"), {}, {}), node).variables:
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
