"""`make demo` does what it promises, and cleans up after itself, also when it is interrupted."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.envoy_binary import envoy_binary
from tests.support.eventually import eventually
from tests.support.proc_tree import proc_tree

PROJECT = Path(__file__).resolve().parent.parent.parent
COMMAND = (sys.executable, "-m", "examples.demo")


def start(temporary: Path) -> "subprocess.Popen[str]":
    envoy_binary()
    env = os.environ | {"TMPDIR": str(temporary)}
    return subprocess.Popen(COMMAND, cwd=PROJECT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_demo_shows_every_step_and_leaves_nothing(tmp_path: Path) -> None:
    out, errors = start(tmp_path).communicate(timeout=100)
    assert errors == ""
    for number, text in (
        (1, r"ready \d+ ms after exec"),
        (2, r"one scrape, three sources: \d+ samples of agent, \d+ samples of Envoy, 2 samples of application"),
        (3, r"killed Envoy \(pid \d+\) with -9: back after \d+ ms"),
        (4, r"wrote a ServiceEntry: live in Envoy \d+ ms later"),
        (5, r"broke that file: local configuration refused: hello.yaml:8: spec.resolution: 'STATICC' is unknown"),
        (6, r"changed the settings: hot restart in \d+ ms, \d+ requests meanwhile, none failed"),
        (7, r"Ctrl-C: drained and stopped in \d+ ms with exit code 0, and left nothing behind"),
    ):
        assert re.search(rf"^{number}\. {text}", out, re.MULTILINE), out
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_demo_takes_everything_with_it(tmp_path: Path) -> None:
    demo = start(tmp_path)
    eventually(lambda: any("pilot_agent" in each.command for each in proc_tree(demo.pid)))
    demo.send_signal(signal.SIGINT)
    out, errors = demo.communicate(timeout=60)
    assert demo.returncode == 130, errors
    assert out.splitlines()[-1] == "interrupted: everything that was started is stopped"
    assert list(tmp_path.iterdir()) == []
