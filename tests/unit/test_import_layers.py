"""Imports go down only: the table of CONTRIBUTING.md, read off every module's syntax tree.

Imports inside functions and under TYPE_CHECKING count too: late is not lower.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pilot_agent

PACKAGE = "pilot_agent"
BOTTOM = ("errors", "values", "log", "clock", "protobuf", "discovery")
LEFT_TO_RIGHT = ("settings", "node", "bootstrap")
LAYERS = {
    **dict.fromkeys(BOTTOM, 0),
    **dict.fromkeys(LEFT_TO_RIGHT, 1),
    **dict.fromkeys(("envoy", "identity", "files", "cloud", "uds", "http2"), 2),
    **dict.fromkeys(("status", "metrics", "sds", "xds", "dns", "mesh", "interception", "inspect"), 3),
    **dict.fromkeys(("supervise", "demo"), 4),
    "commands": 5,
}


def violations(root: Path) -> list[str]:
    """Each forbidden import of the package in `root`, as `file:line: importer -> imported: reason`."""
    found = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        owner = parts[0]
        if owner == "__init__":
            owner_layer: int | None = 0
        else:
            owner_layer = LAYERS.get(owner)
        if owner_layer is None:
            found.append(f"{path}: {owner} is in no layer: give it one here and in CONTRIBUTING.md")
            continue
        module = (PACKAGE, *parts[:-1]) if parts[-1] == "__init__" else (PACKAGE, *parts)
        for line, name in imports(ast.parse(path.read_text()), module, parts[-1] == "__init__"):
            reason = forbidden(owner, name)
            if reason:
                found.append(f"{path}:{line}: {owner} -> {name}: {reason}")
    return found


def imports(tree: ast.AST, module: tuple[str, ...], is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything imported. `from a import b` gives `a.b`: b may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            up = len(module) - node.level + is_package
            origin = ".".join(module[:up]) + ("." if node.module else "") if node.level else ""
            for alias in node.names:
                yield node.lineno, f"{origin}{node.module or ''}.{alias.name}"


def forbidden(owner: str, name: str) -> str | None:
    """Why the part `owner` may not import `name`; None when it may."""
    top, _, inner = name.partition(".")
    if top != PACKAGE:
        if owner in BOTTOM and top not in sys.stdlib_module_names:
            return "layer 0 uses the standard library only"
        return None
    target = inner.partition(".")[0]
    if target == owner or target not in LAYERS:
        return None  # within the part, or a name of the package itself, such as __version__
    above, below = LAYERS.get(owner, 0), LAYERS[target]
    if above > below or above == below == 0:
        return None
    if above < below:
        return "upward"
    if owner in LEFT_TO_RIGHT and LEFT_TO_RIGHT.index(target) < LEFT_TO_RIGHT.index(owner):
        return None
    return "sideways"


def test_the_agent_imports_down_only() -> None:
    assert violations(Path(pilot_agent.__file__).parent) == []


@pytest.mark.parametrize(
    ("path", "line", "reason"),
    [
        ("envoy/a.py", "from pilot_agent.status.server import Server", "upward"),
        ("envoy/a.py", "import pilot_agent.supervise.agent", "upward"),
        ("envoy/a.py", "def late():\n    from pilot_agent import commands", "upward"),
        ("envoy/deep/a.py", "from ...status import server", "upward"),
        ("envoy/__init__.py", "from ..status import server", "upward"),
        ("envoy/a.py", "from pilot_agent.files import watch", "sideways"),
        ("status/a.py", "from pilot_agent.metrics.own import Own", "sideways"),
        ("mesh/a.py", "from ..xds import wire", "sideways"),
        ("demo/a.py", "from pilot_agent.supervise import agent", "sideways"),
        ("settings/a.py", "from pilot_agent.node import addresses", "sideways"),
        ("node/a.py", "from pilot_agent.bootstrap import render", "sideways"),
        ("errors.py", "from pilot_agent.settings import model", "upward"),
        ("log.py", "import click", "layer 0"),
        ("clock.py", "import uvloop.loop", "layer 0"),
        ("helpers/a.py", "import os", "no layer"),
    ],
)
def test_a_violation_is_caught(tmp_path: Path, path: str, line: str, reason: str) -> None:
    write(tmp_path / path, line)
    assert [reason in found for found in violations(tmp_path)] == [True]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("commands/a.py", "from pilot_agent.supervise import agent"),
        ("supervise/a.py", "from pilot_agent.status.server import Server"),
        ("status/a.py", "from . import server"),
        ("status/a.py", "from .server import Server"),
        ("status/a.py", "from pilot_agent.status.server import Server"),
        ("bootstrap/a.py", "from pilot_agent.settings import model\nfrom pilot_agent.node import podinfo"),
        ("envoy/a.py", "from pilot_agent.settings.model import Settings\nimport aiohttp"),
        ("log.py", "from pilot_agent.errors import AgentError\nimport os.path"),
        ("commands/a.py", "from pilot_agent import __version__"),
    ],
)
def test_what_is_allowed_passes(tmp_path: Path, path: str, line: str) -> None:
    write(tmp_path / path, line)
    assert violations(tmp_path) == []


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
