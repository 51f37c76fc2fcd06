"""The demo without root, as somebody who may do nothing: every step, and nothing left behind."""

import re
import signal
from pathlib import Path

from tests.support.demos import Demo, open_to_all, unprivileged
from tests.support.eventually import eventually
from tests.support.proc_tree import proc_tree

STEPS = (
    r"1\. two pods on this machine's loopback",
    r"sleep    admin port \d+, spiffe://cluster.local/ns/demo/sa/sleep",
    r"2\. one request, hop by hop",
    r"curl http://httpbin:\d+/hostname",
    r"1\) sleep, Envoy\n +listener    127\.0\.0\.1_\d+",
    r"2\) httpbin, Envoy\n +listener    127\.0\.0\.1_\d+, filter chain \S+",
    r"mTLS        the peer is spiffe://cluster.local/ns/demo/sa/sleep",
    r"3\) httpbin, application: a request from 127\.0\.0\.1:\d+",
    r"4\) sleep, curl\n +200 httpbin-0",
    r"3\. a rule changed live",
    r"a request gets 418, from sleep's Envoy: flags FI",
    r"PeerAuthentication STRICT: live in httpbin's Envoy",
    r"4\. a broken file",
    r"local configuration refused: httpbin.yaml:7: spec.ports\[0\].port: 70000 is not a port",
    r"its last good version serves on: 200",
    r"5\. metrics",
    r"three sources: \d+ samples of agent, \d+ samples of Envoy, 2 samples of application",
    r"6\. a planned change",
    r"hot restart in \d+ ms, \d+ requests, none failed",
    r"7\. httpbin's Envoy killed under load",
    r"ready again after \d+ ms",
    r"8\. an expired certificate",
    r"\d+ requests meanwhile, none failed",
    r"9\. the end",
    r"both agents drained and ended with exit code 0, all files are gone",
)


def test_the_story_is_told_to_anybody_and_leaves_nothing(tmp_path: Path) -> None:
    with Demo(open_to_all(tmp_path), "--unprivileged", prefix=unprivileged()) as demo:
        code, text = demo.wait(), demo.output
        assert code == 0, text
        place = 0
        for line in STEPS:
            found = re.compile(line).search(text, place)
            assert found, f"{line!r} is not in\n{text[place:]}"
            place = found.end()
        assert demo.left_behind() == []


def test_an_interrupted_demo_takes_everything_with_it(tmp_path: Path) -> None:
    with Demo(open_to_all(tmp_path), "--unprivileged", prefix=unprivileged()) as demo:
        eventually(lambda: sum("proxy --configDir" in each.command for each in proc_tree(demo.process.pid)) == 2, 30)
        demo.process.send_signal(signal.SIGINT)
        assert demo.wait() == 130, demo.output
        assert demo.output.splitlines()[-1].startswith("interrupted: everything that was started is stopped")
        assert demo.left_behind() == []
