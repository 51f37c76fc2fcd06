"""A skipped test passes on a laptop and fails in CI."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent.parent
SKIPPED = "import pytest\n\n\ndef test_nothing():\n    pytest.skip('no such thing here')\n"


@pytest.mark.parametrize(("switches", "code"), [({}, 0), ({"PILOT_AGENT_NO_SKIPS": "1"}, 1), ({"CI": "true"}, 1)])
def test_a_skip_is_a_failure_where_the_switch_is_set(tmp_path: Path, switches: dict[str, str], code: int) -> None:
    (tmp_path / "test_skipped.py").write_text(SKIPPED)
    argv = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", os.devnull, "--rootdir", str(tmp_path)]
    done = subprocess.run(
        [*argv, "-p", "no:cacheprovider", str(tmp_path)],
        cwd=PROJECT,
        env=os.environ | switches,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout
    assert ("skips are failures here" in done.stdout) == bool(code)
