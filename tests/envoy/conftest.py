"""What tests of an agent in a mesh stand on: an application to reach, and a fake istiod that runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.applications import application
from tests.support.fake_istiod import FakeIstiod


@pytest.fixture
def app() -> Iterator[int]:
    """The port of an application that answers `one`."""
    with application("one") as running:
        yield running.port


@pytest.fixture
def istiod(tmp_path: Path) -> Iterator[FakeIstiod]:
    fake = FakeIstiod(tmp_path).start()
    yield fake
    fake.stop()
