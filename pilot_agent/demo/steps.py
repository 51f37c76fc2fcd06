"""The first steps of the demo: the pods are made, and one request is followed from one to the other.

A step takes the scene, does something to it, checks that it happened, and yields lines that tell it. It raises
DemoError when what it wanted to show did not happen. The order of steps is story's.
"""

import os
import time
from collections.abc import Iterator

from pilot_agent.demo import documents, envoy_view
from pilot_agent.demo.hops import arrived, rules, sent, tell
from pilot_agent.demo.passage import Passage, follow
from pilot_agent.demo.pod import Pod
from pilot_agent.demo.scene import Scene
from pilot_agent.errors import DemoError


def start(scene: Scene) -> Iterator[str]:
    began = time.monotonic()
    scene.stage.start()
    took = (time.monotonic() - began) * 1000
    for pod in (scene.sleep, scene.httpbin):
        certificate = certificate_of(pod)
        where = f"{pod.place.name}, {pod.address}" if pod.is_isolated else f"admin port {pod.ports.admin}"
        user = "" if pod.user is None else f", Envoy as uid {os.stat(f'/proc/{pod.envoys[0]}').st_uid}"  # noqa: PTH116
        yield f"{pod.name:<8} {where}{user}, {certificate.spiffe_id}"
    scene.first_certificate = certificate_of(scene.sleep)
    yield f"both ready after {took:.0f} ms: applications, agents, Envoys, certificates{_rules_of(scene)}"


def _rules_of(scene: Scene) -> str:
    return ", rules of istio-iptables" if scene.is_isolated else ""


def certificate_of(pod: Pod) -> envoy_view.Certificate:
    found: list[envoy_view.Certificate] = []

    def has_one() -> bool:
        found[:] = [each for each in [envoy_view.certificate(pod)] if each is not None]
        return bool(found)

    pod.until("a certificate in Envoy", has_one)
    return found[0]


# one request


def request(scene: Scene) -> Iterator[str]:
    passage = _followed(scene)
    scene.first_passage = passage
    yield f"curl {scene.url}"
    yield from tell(passage, scene.sleep, scene.httpbin)


def _followed(scene: Scene) -> Passage:
    passage = follow(scene.sleep, scene.httpbin, scene.curl)
    if passage.answer.body.strip() != f"{scene.httpbin.name}-0":
        raise DemoError(f"somebody else answered: {passage.answer.body.strip()}")
    peer = passage.forwarded_certificate.get("URI", "")
    if not peer.endswith(f"/ns/{documents.NAMESPACE}/sa/{scene.sleep.spec.service_account}"):
        raise DemoError(f"httpbin's Envoy did not see the identity of sleep, but {peer or 'none'}")
    return passage


def transparently(scene: Scene) -> Iterator[str]:
    """The same with TPROXY in httpbin, beside what REDIRECT did, and back."""
    _change_mode(scene, "TPROXY")
    user = scene.httpbin.user
    passage, first = _followed(scene), scene.first_passage
    assert first is not None and user is not None
    yield from _beside(
        ("", "REDIRECT", "TPROXY"),
        ("Envoy of httpbin runs as", "uid 1337, gid 1337", f"uid {user.uid}, gid {user.gid}, CAP_NET_ADMIN"),
        ("takes the packet", _taker(first), _taker(passage)),
        ("lets Envoy's own packet pass", _spared(first), _spared(passage)),
        ("the application sees it come from", first.seen["source"], passage.seen["source"]),
        ("rules that counted in httpbin", f"{len(first.server_moved)}", f"{len(passage.server_moved)}"),
    )
    yield "the rules of httpbin that counted this time (mangle counts every packet, nat the first of a connection):"
    found = [*arrived(passage.server_moved), *sent(passage.server_moved)]
    yield from (f"  {line}" for line in rules([each._replace(purpose="") for each in found]))
    yield "  ISTIO_OUTPUT 3 lets every user but 1337 reach its own pod: here Envoy itself, which runs as uid 0 for that"
    if passage.seen["source"].rpartition(":")[0] != scene.sleep.address:
        raise DemoError(f"with TPROXY the application saw {passage.seen['source']} instead of sleep's own address")
    _change_mode(scene, "REDIRECT")


def _change_mode(scene: Scene, mode: str) -> None:
    """In httpbin. The rules are brought over in one run, and its agent is started anew as the user they let pass."""
    pod = scene.httpbin
    pod.stop_agent()
    pod.mode = mode
    running = pod.begin_capture()
    pod.start_agent()
    pod.finish_capture(running)
    pod.until_ready()
    certificate_of(pod)


def _taker(passage: Passage) -> str:
    targets = ("ISTIO_IN_REDIRECT", "ISTIO_TPROXY")
    found = [each for each in passage.server_moved if each.chain == "ISTIO_INBOUND" and each.target in targets]
    return "; ".join(f"{each.table} {each.chain} {each.number} -> {each.target}" for each in found)


def _spared(passage: Passage) -> str:
    found = [each for each in passage.server_moved if each.table == "nat" and each.chain == "ISTIO_OUTPUT"]
    return "; ".join(f"nat ISTIO_OUTPUT {each.number}" for each in found)


def _beside(*rows: tuple[str, str, str]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for name, left, right in rows:
        yield f"{name:<{widths[0]}}  {left:<{widths[1]}}  {right}".rstrip()
