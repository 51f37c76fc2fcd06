"""istio-iptables: a run from nothing, a second one that changes nothing, many ports and ranges, beside bare iptables.

In a network namespace of its own (needs root). `bare` is one `iptables-nft-restore` of the same rules, which any tool
must at least do.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from tests.support.agents import PROJECT
from tests.support.namespaces import Namespace, namespace

TOOL = (sys.executable, "-m", "pilot_agent.commands.main", "istio-iptables")
# As the injector writes it.
INJECTED = [*"-p 15001 -z 15006 -u 1337 -m REDIRECT -i * -b * -d 15090,15021,15020".split(), "-x", ""]
MANY = 500


def run(rounds: int) -> dict[str, float]:
    """Seconds, medians; and how many times as long as bare iptables."""
    ports = ",".join(str(20000 + number) for number in range(MANY))
    ranges = ",".join(f"10.{number // 250}.{number % 250}.0/24" for number in range(MANY))
    many = ["-u", "1337", "-b", ports, "-i", ranges, "-x", ""]
    figures: dict[str, float] = {}
    for name, flags in (("default", INJECTED), ("many", many)):
        figures |= _measure(f"capture_{name}", flags, rounds)
    return figures


def _measure(name: str, flags: Sequence[str], rounds: int) -> dict[str, float]:
    with namespace("bench") as pod:
        pod.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth9")
        pod.run("ip", "addr", "add", "10.9.0.2/24", "dev", "eth0")
        first, second, bare = [], [], []
        for _ in range(rounds):
            _timed(pod, [*TOOL, *flags, "--cleanup-only"])
            first.append(_timed(pod, [*TOOL, *flags]))
            second.append(_timed(pod, [*TOOL, *flags]))
            text = pod.run("iptables-nft-save", "-t", "nat")
            bare.append(_timed(pod, ["iptables-nft-restore"], text))
    return {
        name: statistics.median(first),
        f"{name}_again": statistics.median(second),
        f"{name}_bare_ratio": statistics.median(one / alone for one, alone in zip(first, bare, strict=True)),
    }


def _timed(pod: Namespace, argv: Sequence[str], text: str = "") -> float:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}

    def go() -> float:
        began = time.monotonic()
        subprocess.run(argv, input=text, text=True, check=True, capture_output=True, env=environment)
        return time.monotonic() - began

    return pod.call(go)
