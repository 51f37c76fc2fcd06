"""What tests of the cloud share: a metadata server of their own, and a machine whose firmware they write."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pilot_agent.cloud import aws
from pilot_agent.cloud.platform import Places
from tests.unit.cloud.metadata_server import FakeMetadataServer

Machine = Callable[..., Path]


@pytest.fixture
def server() -> Iterator[FakeMetadataServer]:
    fake = FakeMetadataServer()
    yield fake
    fake.close()


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What AWS's own server answers in time, a loaded machine may not."""
    monkeypatch.setattr(aws, "TIMEOUT_S", 1.0)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Write DMI files by name; the directory they are in."""

    def write(**files: str) -> Path:
        directory = tmp_path / "dmi"
        directory.mkdir(exist_ok=True)
        for name, text in files.items():
            (directory / name).write_text(f"{text}\n")
        return directory

    return write


@pytest.fixture
def places(tmp_path: Path, server: FakeMetadataServer) -> Places:
    return Places(tmp_path / "dmi", tmp_path / "resolv.conf", server.url)
