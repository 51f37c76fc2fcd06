"""The identity: how soon the first certificate is there, how soon a rotated one is in Envoy, many streams at once."""

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.probing import resident_mib, until
from tests.support.agents import AgentProcess
from tests.support.fake_istiod import FakeIstiod
from tests.support.fake_istiod import running as running_istiod
from tests.support.identities import WORKLOAD_CERTS, Mounted, prepare, sds, serve_tls
from tests.support.sds_client import SdsClient, secrets_in
from tests.support.tls_envoy import tls_connection

ROTATIONS = 1000
STREAMS, CLIENTS = 1000, 4
LATE_S = 1.0
"""What may be asked of a rotation; one that takes longer counts as late."""
CLIENT = "spiffe://cluster.local/ns/foo/sa/client"
KINDS = {"ec": {"ECC_SIGNATURE_ALGORITHM": "ECDSA"}, "rsa": {"ECC_SIGNATURE_ALGORITHM": ""}}


def run(binary: Path, rounds: int) -> dict[str, float]:
    return {**first_certificates(binary, rounds), **streams(binary), **rotations(binary)}


@contextmanager
def _agent(binary: Path, istiod: FakeIstiod | None, **env: str) -> Iterator[AgentProcess]:
    with tempfile.TemporaryDirectory() as directory:
        agent = prepare(AgentProcess(Path(directory), binary), istiod, **env)
        try:
            yield agent
            agent.stop()
        finally:
            agent.kill()


def first_certificates(binary: Path, rounds: int) -> dict[str, float]:
    """Seconds from exec until the CA's certificate is in hand, median and longest; MiB of the agent at rest."""
    figures: dict[str, float] = {}
    for kind, env in KINDS.items():
        seconds = []
        for number in range(rounds):
            with _ca() as istiod, _agent(binary, istiod, **env) as agent:
                began = time.monotonic()
                agent.start()
                seconds.append(until(lambda agent=agent: agent.lines("certificate issued") != []) - began)  # type: ignore[misc]
                if number == 0:
                    time.sleep(6)  # what begins after the start has begun
                    figures[f"mesh_rest_{kind}_mib"] = resident_mib(agent.pid)
        figures[f"first_cert_{kind}"] = statistics.median(seconds)
        figures[f"first_cert_{kind}_longest"] = max(seconds)
    return figures


@contextmanager
def _ca() -> Iterator[FakeIstiod]:
    with tempfile.TemporaryDirectory() as directory, running_istiod(FakeIstiod(Path(directory))) as istiod:
        yield istiod


def streams(binary: Path) -> dict[str, float]:
    """STREAMS streams at once: seconds until all have their first secret, and until all have a pushed one."""
    with _agent(binary, None) as agent:
        del agent.env["FILE_MOUNTED_CERTS"]
        mounted = Mounted(agent.directory / WORKLOAD_CERTS)
        mounted.rotate()
        agent.start()
        until(lambda: agent.lines("SDS server listens") != [])
        time.sleep(6)  # the watcher of files begins 5 s after a start without a ready Envoy
        before = resident_mib(agent.pid)
        clients: list[SdsClient] = [sds(agent) for _ in range(CLIENTS)]
        try:
            crowd = [client.bare_stream() for client in clients for _ in range(STREAMS // CLIENTS)]
            began = time.monotonic()
            for stream in crowd:
                stream.send("default")
            for stream in crowd:
                stream.receive()
            answered = time.monotonic() - began
            pair = mounted.rotate()
            began = time.monotonic()
            chains = {secrets_in(s.receive())["default"].tls_certificate.certificate_chain.inline_bytes for s in crowd}
            pushed = time.monotonic() - began
            assert chains == {pair.chain.encode()}
            after = resident_mib(agent.pid)
            for stream in crowd:
                stream.cancel()
        finally:
            for client in clients:
                client.close()
    return {"sds_streams_answered": answered, "sds_streams_pushed": pushed, "sds_streams_mib": after - before}


def rotations(binary: Path) -> dict[str, float]:
    """A mounted secret swapped ROTATIONS times, each time until Envoy's TLS server shows the new certificate."""
    with _agent(binary, None) as agent:
        del agent.env["FILE_MOUNTED_CERTS"]
        mounted = Mounted(agent.directory / WORKLOAD_CERTS)
        mounted.rotate()
        port = serve_tls(agent)
        agent.start()
        client, shown = mounted.authority.pair(CLIENT), ""

        def has_changed() -> bool:
            nonlocal shown
            try:
                with tls_connection(port, client, mounted.authority.pem) as connection:
                    found = connection.serial
            except OSError:
                return False
            before, shown = shown, found
            return found != before

        until(has_changed)
        until(lambda: agent.lines("SDS server listens") != [])
        time.sleep(6)
        seconds, missed = [], 0
        for number in range(ROTATIONS):
            mounted.rotate()
            began = time.monotonic()
            try:
                seconds.append(until(has_changed) - began)
            except TimeoutError:
                missed += 1
            if number % 200 == 199:
                print(f"    {number + 1} rotations, {missed} missed", file=sys.stderr, flush=True)
    ordered = sorted(seconds)
    return {
        "rotation": statistics.median(ordered),
        "rotation_p99": ordered[int(len(ordered) * 0.99)],
        "rotation_longest": ordered[-1],
        "rotations_late": sum(each > LATE_S for each in ordered),
        "rotations_missed": missed,
    }
