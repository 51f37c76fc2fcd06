"""The steps in which something goes wrong: Envoy is killed under load, a certificate expires.

As in changes: a step yields what it has to tell, and raises DemoError when that did not happen.
"""

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from pilot_agent.demo.load import CLIENTS
from pilot_agent.demo.passage import forwarded_certificate, header
from pilot_agent.demo.scene import SECRET_TTL_S, Scene
from pilot_agent.demo.steps import certificate_of
from pilot_agent.errors import DemoError

MANY = 8


def envoy_killed(scene: Scene) -> Iterator[str]:
    """kill -9 under load."""
    pod = scene.httpbin
    pod.until("one Envoy alone", lambda: len(pod.envoys) == 1)  # after a hot restart there may still be two
    envoy = pod.envoys[0]
    seen, lines = len(pod.application_log()), len(scene.sleep.access_log())
    reasons: dict[str, None] = {}

    def is_back() -> bool:
        reason = pod.readiness()
        if reason:
            reasons[re.sub(r" \(pid \d+\)", "", reason)] = None
        return envoy not in pod.envoys and not reason and pod.is_ready()

    with scene.load() as load:
        scene.until_asked(load)
        os.kill(envoy, signal.SIGKILL)
        took = pod.until("Envoy back", is_back)
        scene.until_asked(load)
    if scene.ask().status != 200:
        raise DemoError("Envoy is back, and requests still fail")
    again = Counter(_attempts(each) for each in pod.application_log()[seen:])
    failed = ", ".join(f"{count} got {status or 'no whole answer'}" for status, count in load.failed.items())
    yield f"kill -9 of httpbin's Envoy (pid {envoy}): ready again after {took:.0f} ms, as pid {pod.envoys[0]}"
    for reason in reasons:
        yield f"  readiness said meanwhile: {reason}"
    yield f"  {load.requests} requests of {CLIENTS} clients: {failed or 'none failed'}{_flags(scene, lines)}"
    more = ", ".join(f"{count} at attempt {number}" for number, count in sorted(again.items()) if number > 1)
    yield f"  sleep's Envoy tries again by itself (connect-failure, 2 retries): {more or 'no answer came by a retry'}"


def _attempts(note: dict[str, Any]) -> int:
    return int(header(note, "x-envoy-attempt-count") or 1)


def _flags(scene: Scene, first: int) -> str:
    """Why, in Envoy's own words."""
    found = Counter(each.response_flags for each in scene.sleep.access_log()[first:] if each.response_code != "200")
    return (
        f" ({', '.join(f'{count} {flags}' for flags, count in found.items())} in sleep's access log)" if found else ""
    )


def rotation(scene: Scene) -> Iterator[str]:
    """The certificate that sleep began with expires, and requests go on."""
    first = scene.first_certificate
    assert first is not None
    ends = _seconds(first.not_after)
    with scene.load() as load:
        scene.sleep.until("the first certificate's end", lambda: time.time() > ends, within=SECRET_TTL_S + 5)
        scene.until_asked(load)
    now = certificate_of(scene.sleep)
    if now.serial == first.serial or _seconds(now.not_after) < time.time():
        raise DemoError(f"Envoy still shows the certificate {now.serial}, valid until {now.not_after}")
    if load.failed:
        raise DemoError(f"requests failed while certificates changed: {load.failed}")
    yield f"certificates of {SECRET_TTL_S} s, renewed halfway: the one that sleep began with has expired"
    yield f"  at the start  {first.serial}, until {first.not_after}"
    yield f"  now           {now.serial}, until {now.not_after}"
    yield f"  {load.requests} requests meanwhile, none failed"
    assert scene.first_passage is not None
    before = scene.first_passage.forwarded_certificate
    new = _shown_by_a_new_connection(scene)
    if new["Hash"] == before["Hash"] or new["URI"] != before["URI"]:
        raise DemoError(f"a new connection should show the new certificate of {before['URI']}, and shows {new}")
    yield f"  open connections keep what they began with; a new one shows {new['URI']} by the new certificate,"
    yield f"  SHA-256 {new['Hash'][:16]}... instead of {before['Hash'][:16]}..."


def _shown_by_a_new_connection(scene: Scene) -> dict[str, str]:
    """What httpbin's Envoy forwarded of sleep's certificate. Slow requests, more than there are connections."""
    path = "/delay/0.3"
    with ThreadPoolExecutor(MANY) as clients:
        statuses = {answer.status for answer in clients.map(lambda _: scene.ask(path), range(MANY))}
    if statuses != {200}:
        raise DemoError(f"slow requests got {sorted(statuses)}")
    notes = [note for note in scene.httpbin.application_log() if note["path"] == path]
    assert scene.first_passage is not None
    first = scene.first_passage.forwarded_certificate
    found = [forwarded_certificate(note) for note in notes]
    return next((each for each in found if each["Hash"] != first["Hash"]), first)


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()
