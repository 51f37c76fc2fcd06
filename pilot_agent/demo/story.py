"""The demo as a whole: its steps in their order, told as they happen, and the end of everything it made."""

import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from pilot_agent.demo import changes, steps, trouble
from pilot_agent.demo.leftovers import clear_leftovers, new_directory
from pilot_agent.demo.scene import Scene
from pilot_agent.demo.stage import Stage
from pilot_agent.errors import DemoError

Say = Callable[[str], None]


class Wishes(NamedTuple):
    """`pause` is called between the steps, `look_around` at the end with commands to try; None for neither."""

    is_isolated: bool
    mode: str = "both"
    pause: Callable[[], None] | None = None
    look_around: Callable[[list[str]], None] | None = None


class Step(NamedTuple):
    title: str
    run: Callable[[Scene], Iterator[str]]


def steps_of(wishes: Wishes) -> list[Step]:
    """In their order."""
    change = Step("a rule changed live", changes.rule_change)
    killed = Step("httpbin's Envoy killed under load", trouble.envoy_killed)
    rotation = Step("an expired certificate", trouble.rotation)
    request = Step("one request, hop by hop", steps.request)
    if wishes.is_isolated:
        made = Step("two pods: network namespaces joined by a veth", steps.start)
        comparison = Step("REDIRECT against TPROXY", steps.transparently)
        return [made, request, *([comparison] if wishes.mode == "both" else []), change, killed, rotation]
    made = Step("two pods on this machine's loopback (as root: in network namespaces)", steps.start)
    others = [Step("a broken file", changes.broken_file), Step("metrics", changes.metrics)]
    planned = Step("a planned change", changes.settings_change)
    return [made, request, change, *others, planned, killed, rotation]


def tell(wishes: Wishes, say: Say) -> None:
    """Raises DemoError when a step did not happen; whatever ends it, everything is taken away."""
    for name in clear_leftovers():
        say(f"an earlier demo was killed and left this behind, removed: {name}")
    stage = Stage(new_directory(), is_isolated=wishes.is_isolated)
    try:
        with stage:
            _tell(Scene(stage, "TPROXY" if wishes.mode == "tproxy" else "REDIRECT"), wishes, say)
            began = time.monotonic()
    finally:
        left = stage.leftovers()
        if left:
            say(f"left behind: {', '.join(left)}")
    if left or stage.faults:
        raise DemoError(f"the end was not clean: {'; '.join([*left, *stage.faults])}")
    took = (time.monotonic() - began) * 1000
    say(f"{len(steps_of(wishes)) + 1}. the end")
    what = "namespaces and files" if wishes.is_isolated else "files"
    say(f"   both agents drained and ended with exit code 0, all {what} are gone, in {took:.0f} ms")


def _tell(scene: Scene, wishes: Wishes, say: Say) -> None:
    for number, step in enumerate(steps_of(wishes), 1):
        if number > 1 and wishes.pause is not None:
            wishes.pause()
        say(f"{number}. {step.title}")
        for line in step.run(scene):
            say(f"   {line}")
    if wishes.look_around is not None:
        wishes.look_around(_commands(scene))


def _commands(scene: Scene) -> list[str]:
    """To look at the pods with, from another terminal."""
    program = "pilot-agent" if shutil.which("pilot-agent") else str(Path(sys.executable).with_name("pilot-agent"))
    found = [scene.sleep.place.wrapped(["curl", *scene.to_service, scene.url])]
    for pod in (scene.sleep, scene.httpbin):
        found.append(pod.place.wrapped([program, "status", "--port", str(pod.ports.status)]))
        admin = ["--adminPort", str(pod.ports.admin)]
        found += [pod.place.wrapped([program, "proxy-config", view, *admin]) for view in ("listeners", "secrets")]
        if pod.is_isolated:
            found.append([program, "istio-iptables", "status", *pod.rule_flags])
        found.append(["tail", "-f", str(pod.access_log_path)])
    return [shlex.join(each) for each in found]
