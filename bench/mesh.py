"""The xDS proxy: starts in a mesh, memory there, pushes of 20 MB and small ones, beside Envoy without an agent.

The server is a process of its own (`ads_server`), the same one for the agent and for the Envoy without (`straight`), in
turn. `python -m bench.mesh` prints this part alone.
"""

import argparse
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

from bench.ads_server import MOVING, Server, served
from bench.probing import let_keep_bytecode, peak_mib, resident_mib, until, until_answered
from bench.straight import Model, model_of, straight
from tests.support.agents import AgentProcess
from tests.support.envoy_binary import find_envoy_binary
from tests.support.identities import prepare
from tests.support.ports import free_port

SERVICES = {"small": 10, "large": 2_000}
AT_REST_S = 7.0
"""After ready: what begins late has begun by then."""

LARGE_BYTES = 20_000_000
LARGE_PUSHES, FIRST_LARGE_PUSHES = 100, 5
AFTER_PUSHES_S = 3.0
PAIRS = 9
"""Of 20 MB to the agent and straight, of each kind."""
SMALL_PUSHES, SMALL_ROUNDS = 2_000, 5


def run(binary: Path, rounds: int) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name, count in SERVICES.items():
        figures |= starts(binary, rounds, name, count)
    for is_secure in (False, True):
        figures |= pushes(binary, is_secure=is_secure)
    return figures | endurance(binary)


@contextmanager
def agent_of(binary: Path, server: Server, *, is_secure: bool = True) -> Iterator[tuple[AgentProcess, float]]:
    """An agent in the mesh of `server`, with a certificate of its CA, and the moment of its exec."""
    with tempfile.TemporaryDirectory() as directory:
        agent = prepare(AgentProcess(Path(directory), binary), server, XDS_ROOT_CA=str(server.root_file))
        if is_secure:
            agent.write_mesh(discoveryAddress=server.address)
        else:
            agent.write_mesh(discoveryAddress=server.plain_address, controlPlaneAuthPolicy="NONE")
        began = time.monotonic()
        agent.start()
        try:
            yield agent, began
            agent.stop()
        finally:
            agent.kill()


# Starts


def starts(binary: Path, rounds: int, name: str, count: int) -> dict[str, float]:
    """Seconds from exec to the first 200 on the ready port, over TLS; MiB of the agent at rest."""
    times = []
    with served("services", str(count), str(free_port())) as server:
        model, resident = _model_and_memory(binary, server, count)
        for _ in range(rounds):
            with straight(model, server, is_secure=True) as envoy:
                alone = until_answered(envoy.ready) - envoy.began
            with agent_of(binary, server) as (agent, began):
                times.append((alone, until_answered(agent.ports.ready) - began))
                _check_services(agent.ports.admin, count)
    return {
        f"mesh_ready_{name}": statistics.median(mine for _, mine in times),
        f"mesh_ready_{name}_longest": max(mine for _, mine in times),
        f"mesh_ready_{name}_straight": statistics.median(theirs for theirs, _ in times),
        f"mesh_ready_{name}_ratio": statistics.median(mine / theirs for theirs, mine in times),
        f"mesh_rest_{name}_mib": resident,
    }


def _model_and_memory(binary: Path, server: Server, count: int) -> tuple[Model, float]:
    with agent_of(binary, server) as (agent, _):
        until_answered(agent.ports.ready)
        _check_services(agent.ports.admin, count)
        model = model_of(agent)
        time.sleep(AT_REST_S)
        return model, resident_mib(agent.pid)


def _check_services(admin: int, count: int) -> None:
    found = _clusters(admin).count(".default.svc.cluster.local::added_via_api::true")
    if found != count:
        raise RuntimeError(f"Envoy is ready with {found} services of {count}")


def _clusters(admin: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/clusters", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


# Pushes


class _Client(NamedTuple):
    """An Envoy that is pushed to; `stream` is its number at the server."""

    server: Server
    stream: int
    admin: int

    def large(self, variant: int) -> float:
        """Seconds."""
        return float(self.server.order(order="large", stream=self.stream, size=LARGE_BYTES, variant=variant)["seconds"])

    def small(self, kind: str) -> float:
        """Pushes a second; the last one must be what Envoy has in the end."""
        answer = self.server.order(order=kind, stream=self.stream, count=SMALL_PUSHES)
        last = f"{MOVING}::127.0.0.1:{answer['port']}::"
        until(lambda: last in _clusters(self.admin))
        return SMALL_PUSHES / float(answer["seconds"])


def _settled(server: Server, admin: int) -> _Client:
    return _Client(server, server.order(order="settle")["stream"], admin)


def pushes(binary: Path, *, is_secure: bool) -> dict[str, float]:
    """Seconds and pushes a second, through the agent and straight, with the medians of the pairs' ratios."""
    link = "tls" if is_secure else "plain"
    with served("pushes") as server, agent_of(binary, server, is_secure=is_secure) as (agent, _):
        until_answered(agent.ports.ready)
        ours = _settled(server, agent.ports.admin)
        with straight(model_of(agent), server, is_secure=is_secure) as envoy:
            alone = _settled(server, envoy.admin)
            figures = _small(ours, alone) | _large(ours, alone)
    return {f"{name}_{link}": value for name, value in figures.items()}


def endurance(binary: Path) -> dict[str, float]:
    """MiB of the agent after some pushes of 20 MB and right after many, the most it ever had, and what stays of it."""
    figures = {}
    with served("pushes") as server, agent_of(binary, server) as (agent, _):
        until_answered(agent.ports.ready)
        client = _settled(server, agent.ports.admin)
        for number in range(1, LARGE_PUSHES + 1):
            client.large(0)
            if number in (FIRST_LARGE_PUSHES, LARGE_PUSHES):
                figures[f"push_20mb_after_{number}_mib"] = resident_mib(agent.pid)
        figures["push_20mb_peak_mib"] = peak_mib(agent.pid)
        time.sleep(AFTER_PUSHES_S)
        figures["push_20mb_rest_mib"] = resident_mib(agent.pid)
    return figures


def _small(ours: _Client, alone: _Client) -> dict[str, float]:
    figures = {}
    for kind in ("small", "pipelined"):
        rates = [(alone.small(kind), ours.small(kind)) for _ in range(SMALL_ROUNDS)]
        figures[f"push_{kind}_per_second"] = statistics.median(mine for _, mine in rates)
        figures[f"push_{kind}_per_second_straight"] = statistics.median(theirs for theirs, _ in rates)
        figures[f"push_{kind}_ratio"] = statistics.median(mine / theirs for theirs, mine in rates)
    return figures


def _large(ours: _Client, alone: _Client) -> dict[str, float]:
    """Of clusters that all change, for which Envoy has work to do; and of such as it has already, which it compares."""
    figures = {}
    for kind, variants in (("changed", (0, 1)), ("same", (1,))):
        for client in (alone, ours):
            client.large(1)
        times = [(alone.large(each), ours.large(each)) for each in islice(cycle(variants), PAIRS)]
        figures[f"push_20mb_{kind}"] = statistics.median(mine for _, mine in times)
        figures[f"push_20mb_{kind}_straight"] = statistics.median(theirs for theirs, _ in times)
        figures[f"push_20mb_{kind}_ratio"] = statistics.median(mine / theirs for theirs, mine in times)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.mesh", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="starts of each kind (default 9)")
    binary = find_envoy_binary()
    assert binary is not None
    let_keep_bytecode()
    for name, value in run(binary, parser.parse_args().rounds).items():
        print(f"{name:40} {value:12.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
