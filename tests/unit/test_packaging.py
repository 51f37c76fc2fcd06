"""The wheel carries the templates, and the installed agent finds them from anywhere. One build serves all."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import pilot_agent
from pilot_agent.bootstrap.render import templates_directory

ROOT = Path(pilot_agent.__file__).resolve().parent.parent

pytest.importorskip("hatchling", reason="hatchling builds the wheel: pip install 'pilot-agent[dev]'")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("not run from a checkout")
    directory = tmp_path_factory.mktemp("wheel")
    # Not through pip: that takes six times as long for the same call of hatchling, and a cache directory.
    build = f"from hatchling.build import build_wheel; print(build_wheel({str(directory)!r}))"
    done = subprocess.run([sys.executable, "-c", build], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return directory / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a pure wheel's files would be after `pip install --target`."""
    directory = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory)
    return directory


def shipped() -> set[str]:
    templates = ROOT / "templates"
    paths = (path.relative_to(templates) for path in templates.rglob("*") if path.is_file())
    return {str(path) for path in paths if "__pycache__" not in path.parts}


def test_the_wheel_holds_every_template(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name.removeprefix("pilot_agent/_templates/") for name in archive.namelist()}
    assert shipped() <= names
    assert shipped()


def test_the_wheel_holds_licence_and_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        entry_points = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "pilot-agent = pilot_agent.commands.main:main" in entry_points


def test_the_wheel_holds_no_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        roots = {name.split("/")[0] for name in archive.namelist()}
    assert roots == {"pilot_agent", next(root for root in roots if root.endswith(".dist-info"))}


def test_the_installed_agent_finds_its_own_templates(installed: Path, tmp_path: Path) -> None:
    """From a directory that is not the checkout, with the wheel first on the path."""
    script = (
        f"import sys; sys.path.insert(0, {str(installed)!r})\n"
        "from pilot_agent.bootstrap.render import templates_directory; print(templates_directory())"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == str(installed / "pilot_agent" / "_templates"), done.stderr


def test_a_checkout_uses_the_templates_beside_the_package() -> None:
    """What an editable install runs: an edited template takes effect without a build."""
    assert templates_directory() == ROOT / "templates"
    assert not (ROOT / "pilot_agent" / "_templates").exists()
