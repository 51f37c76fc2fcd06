"""The demo as root: every hop of the request by what it says, and nothing left behind, however it ends."""

import re
import signal
from pathlib import Path

import pytest

from pilot_agent.demo.leftovers import clear_leftovers
from tests.support.demos import Demo
from tests.support.eventually import eventually
from tests.support.namespaces import missing
from tests.support.proc_tree import proc_tree

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

SPIFFE = "spiffe://cluster.local/ns/demo/sa/"
SLEEP, HTTPBIN, SERVICE = r"10\.244\.0\.10", r"10\.244\.0\.11", r"10\.96\.0\.10"
HOPS = (
    r"1\. two pods: network namespaces joined by a veth",
    rf"sleep    demo-\d+-sleep, {SLEEP}, Envoy as uid 1337, {SPIFFE}sleep",
    rf"httpbin  demo-\d+-httpbin, {HTTPBIN}, Envoy as uid 1337, {SPIFFE}httpbin",
    r"2\. one request, hop by hop",
    r"curl http://httpbin:8000/hostname",
    rf"1\) sleep, curl: its connection to {SERVICE}:8000 is caught",
    r"nat OUTPUT 1          -j ISTIO_OUTPUT +\+2  this one and, below, Envoy's own",
    r"nat ISTIO_OUTPUT 9    -j ISTIO_REDIRECT +\+1 ",
    r"nat ISTIO_REDIRECT 1  -p tcp -j REDIRECT --to-ports 15001  \+1",
    r"2\) sleep, Envoy \(uid 1337, gid 1337\)",
    r"virtualOutbound -> 0\.0\.0\.0_8000",
    r"route       8000 \(default\)",
    r"cluster     outbound\|8000\|\|httpbin\.demo\.svc\.cluster\.local",
    rf"endpoint    {HTTPBIN}:80",
    rf'access log  .*"GET /hostname HTTP/1.1" 200 .* {SLEEP}:\d+ {SERVICE}:8000 {SLEEP}:\d+ - default',
    rf"3\) sleep, Envoy: its own connection to {HTTPBIN}:80 is let out",
    r"nat ISTIO_OUTPUT 4  -m owner --uid-owner 1337 -j RETURN  \+1 ",
    rf"4\) httpbin: a connection from {SLEEP}:\d+ is caught",
    r"nat PREROUTING 1 +-p tcp -j ISTIO_INBOUND +\+1",
    r"nat ISTIO_INBOUND \d +-p tcp -j ISTIO_IN_REDIRECT +\+1",
    r"nat ISTIO_IN_REDIRECT 1  -p tcp -j REDIRECT --to-ports 15006  \+1",
    r"5\) httpbin, Envoy \(uid 1337, gid 1337\)",
    r"listener    virtualInbound, filter chain 0\.0\.0\.0_80",
    rf"mTLS        the peer is {SPIFFE}sleep",
    r"cluster     inbound\|80\|\|",
    rf"endpoint    {HTTPBIN}:80, from 127\.0\.0\.6:\d+",
    r"access log  .* inbound\|80\|\| 127\.0\.0\.6:\d+ .* outbound_\.8000_\._\.httpbin\.demo\.\S+ default",
    r"6\) httpbin, Envoy: its connection from 127\.0\.0\.6:\d+ to the application is let pass",
    r"nat ISTIO_OUTPUT 1  -s 127\.0\.0\.6 -o lo -j RETURN  \+1 ",
    r"7\) httpbin, application: a request from 127\.0\.0\.6:\d+",
    rf"x-forwarded-client-cert: By={SPIFFE}httpbin;Hash=[0-9a-f]{{64}};.*URI={SPIFFE}sleep",
    r"8\) sleep, curl",
    r"200 httpbin-0",
)
AFTERWARDS = (
    r"3\. REDIRECT against TPROXY",
    r"Envoy of httpbin runs as           uid 1337, gid 1337 +uid 0, gid 1337, CAP_NET_ADMIN",
    r"takes the packet +nat ISTIO_INBOUND \d -> ISTIO_IN_REDIRECT  mangle ISTIO_INBOUND \d -> ISTIO_TPROXY",
    r"lets Envoy's own packet pass       nat ISTIO_OUTPUT 1 +nat ISTIO_OUTPUT 3",
    rf"the application sees it come from  127\.0\.0\.6:\d+ +{SLEEP}:\d+",
    r"mangle ISTIO_TPROXY 1   ! -d 127\.0\.0\.1 -p tcp -j TPROXY --on-port 15006 .*\+1",
    r"4\. a rule changed live",
    r"a VirtualService with a fault, written to a file: live in sleep's Envoy \d+ ms later",
    r"a request gets 418, from sleep's Envoy: flags FI, upstream -",
    r"file removed: 200 again after \d+ ms",
    r"PeerAuthentication STRICT: live in httpbin's Envoy \d+ ms later",
    r"plain text, which got 200 before: .+",
    r"through sleep's Envoy, with its certificate: 200",
    r"5\. httpbin's Envoy killed under load",
    r"kill -9 of httpbin's Envoy \(pid \d+\): ready again after \d+ ms, as pid \d+",
    r"\d+ requests of 3 clients: ",
    r"6\. an expired certificate",
    r"at the start  [0-9a-f]+, until ",
    r"now           [0-9a-f]+, until ",
    r"\d+ requests meanwhile, none failed",
    rf"a new one shows {SPIFFE}sleep by the new certificate",
    r"7\. the end",
    r"both agents drained and ended with exit code 0, all namespaces and files are gone",
)


def test_the_story_is_told_hop_by_hop_and_leaves_nothing(tmp_path: Path) -> None:
    with Demo(tmp_path) as demo:
        code, text = demo.wait(), demo.output
        assert code == 0, text
        place = 0
        for line in (*HOPS, *AFTERWARDS):
            found = re.compile(line).search(text, place)
            assert found, f"{line!r} is not in\n{text[place:]}"
            place = found.end()
        assert demo.left_behind() == []


@pytest.mark.parametrize(
    ("number", "text", "code"),
    [(signal.SIGINT, "3. REDIRECT against TPROXY", 130), (signal.SIGTERM, "1. two pods", 143)],
)
def test_an_interrupted_demo_takes_everything_with_it(
    tmp_path: Path, number: signal.Signals, text: str, code: int
) -> None:
    with Demo(tmp_path) as demo:
        demo.until_said(text)
        demo.process.send_signal(number)
        demo.process.send_signal(number)  # an impatient second one does not stop the clearing away
        assert demo.wait() == code, demo.output
        assert demo.output.splitlines()[-1].startswith("interrupted: everything that was started is stopped")
        assert demo.left_behind() == []


def test_what_a_killed_demo_left_goes_at_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Demo(tmp_path) as demo:
        demo.until_said("2. one request")
        agents = [each.pid for each in proc_tree(demo.process.pid)]
        assert agents
        demo.process.kill()
        demo.wait()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        assert len(clear_leftovers()) == 3, "two namespaces, a directory"
        assert demo.left_behind() == []
        eventually(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in agents))
