"""The local mesh as the supervisor sees it: what changed, what is wrong, and each said once."""

from pathlib import Path

import pytest

from pilot_agent.errors import SettingsError
from pilot_agent.mesh.local import LocalMesh
from tests.support.recorded_log import RecordedLog
from tests.unit.mesh.declared import Mesh, publisher, service_entry


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    return Mesh(tmp_path)


def test_a_missing_directory_is_a_settings_error(tmp_path: Path) -> None:
    local = LocalMesh(tmp_path / "none", publisher(tmp_path), RecordedLog().scope)
    with pytest.raises(
        SettingsError, match=f"--configDir {tmp_path}/none: No such file or directory; give a directory"
    ):
        local.load()


def test_changes_are_told_by_host(mesh: Mesh) -> None:
    mesh.write("a.yaml", service_entry("a"))
    mesh.local.load()
    assert mesh.local.services == 1
    mesh.write("a.yaml", service_entry("a", endpoint="127.0.0.2"))
    mesh.write("b.yaml", service_entry("b"))
    change = mesh.local.reload()
    assert (change.added, change.changed, change.removed) == (("b.example.com",), ("a.example.com",), ())
    (mesh.documents / "a.yaml").unlink()
    assert mesh.local.reload().removed == ("a.example.com",)
    assert (mesh.local.services, mesh.local.reloads_total) == (1, 2)


def test_a_reload_of_the_same_is_no_change_and_no_log_line(mesh: Mesh) -> None:
    mesh.write("a.yaml", service_entry("a"))
    mesh.local.load()
    mesh.log.lines.clear()
    assert not mesh.local.reload().is_effective
    assert mesh.log.lines == []


def test_moving_a_document_changes_no_service(mesh: Mesh) -> None:
    mesh.write("a.yaml", service_entry("a"))
    mesh.local.load()
    mesh.write("a.yaml", "# a comment\n" + service_entry("a"))
    assert not mesh.local.reload().is_effective


def test_an_error_is_said_once_and_again_when_it_is_gone(mesh: Mesh) -> None:
    mesh.write("a.yaml", service_entry("a"))
    mesh.local.load()
    mesh.log.lines.clear()
    mesh.write("a.yaml", service_entry("a").replace("8000", "x"))
    mesh.local.reload()
    mesh.local.reload()
    assert len(mesh.log.lines) == 1
    assert mesh.log.lines[0].startswith("error Refused as a whole")
    assert list(mesh.local.errors) == ["a.yaml"]
    assert mesh.local.errors["a.yaml"].startswith("a.yaml:8: spec.ports[0].number: 'x' is not a port number")
    assert (mesh.local.refused_total, mesh.local.services) == (1, 1)
    mesh.write("a.yaml", service_entry("a"))
    mesh.local.reload()
    assert mesh.log.lines[1:] == ["info a.yaml: the error is gone"]
    assert mesh.local.errors == {}


def test_a_directory_that_goes_leaves_the_mesh_serving(mesh: Mesh) -> None:
    mesh.write("a.yaml", service_entry("a"))
    mesh.local.load()
    mesh.documents.rename(mesh.documents.with_name("elsewhere"))
    mesh.log.lines.clear()
    for _ in range(2):
        assert not mesh.local.reload().is_effective
    assert (len(mesh.log.lines), mesh.local.services) == (1, 1)
    assert "can't be read: No such file or directory" in "".join(mesh.local.errors.values())
    mesh.documents.with_name("elsewhere").rename(mesh.documents)
    mesh.local.reload()
    assert mesh.local.errors == {}


def test_what_can_not_be_published_is_published_later(mesh: Mesh) -> None:
    mesh.local.load()
    mesh.write("a.yaml", service_entry("a"))
    blocked = mesh.output / "eds"
    blocked.rmdir()
    blocked.write_text("in the way")
    mesh.log.lines.clear()
    for _ in range(2):
        assert not mesh.local.reload().is_effective
    assert len(mesh.log.lines) == 1
    assert "can't be published" in "".join(mesh.local.errors.values())
    blocked.unlink()
    assert mesh.local.reload().added == ("a.example.com",)
    assert mesh.local.errors == {}


def test_warnings_are_said_once(mesh: Mesh) -> None:
    mesh.write("a.yaml", service_entry("a").replace("spec:\n", "spec:\n  networks: ['.']\n"))
    mesh.local.load()
    mesh.local.reload()
    warnings = [line for line in mesh.log.lines if line.startswith("warn")]
    assert warnings == ["warn Not used: is not supported here and has no effect"]
    assert str(mesh.local.warnings[0]).startswith("a.yaml:5: spec.networks")


def test_what_was_published_can_be_taken_away(mesh: Mesh) -> None:
    mesh.local.load()
    assert mesh.local.lds_path.is_file() and mesh.local.cds_path.is_file()
    mesh.local.remove()
    assert not mesh.output.exists()
