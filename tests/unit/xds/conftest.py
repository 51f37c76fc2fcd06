"""An istiod without TLS, and the proxy in front of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fake_istiod import FakeIstiod
from tests.unit.xds.proxied import Proxied


@pytest.fixture
def istiod(tmp_path: Path) -> Iterator[FakeIstiod]:
    fake = FakeIstiod(tmp_path, is_plaintext=True).start()
    yield fake
    fake.stop()


@pytest.fixture
def proxied(tmp_path: Path, istiod: FakeIstiod) -> Iterator[Proxied]:
    running = Proxied(tmp_path, istiod.address)
    yield running
    running.stop()


@pytest.fixture(params=[False, True], ids=["sotw", "delta"])
def is_delta(request: pytest.FixtureRequest) -> bool:
    """The kind of a test's streams."""
    found: bool = request.param
    return found
