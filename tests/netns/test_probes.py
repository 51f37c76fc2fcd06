"""Probes of the application in network namespaces: their source over IPv6, and that interception spares them."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pilot_agent.status.probe_config import parse_probers
from pilot_agent.status.probes import AppProbes, ProbeOptions
from pilot_agent.status.workload_health import check_http
from pilot_agent.status.workload_probe import HttpCheck
from tests.support.applications import application
from tests.support.certificates import self_signed_server
from tests.support.http import fetch
from tests.support.namespaces import Namespace, connect, missing, namespace
from tests.support.probed import Probed, answering, http, listening
from tests.support.recorded_log import RecordedLog
from tests.unit.status.served import served

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

HERE, THERE = "10.79.1.1", "10.79.1.2"
POD = "fd00:79::1"
LIVEZ = "/app-health/app/livez"


async def hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def probe(app: Probed, kind: str, instance_ip: str, **action: Any) -> tuple[int, list[str]]:
    """What the agent answers, and what it logs."""
    log = RecordedLog()
    text = json.dumps({LIVEZ: {kind: {"port": app.port, **action}, "timeoutSeconds": 20}})
    options = ProbeOptions(instance_ip, 15020, legacy_localhost=False, keepalive=False, http2=True, log=log.scope)
    probes = AppProbes(parse_probers(text, 15020)[0], options)
    async with served(probes=probes) as port:
        answer = await fetch(port.port, LIVEZ)
    await probes.close()
    return answer.status, log.lines


def run_in(where: Namespace, main: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await main()

    where.call(lambda: asyncio.run(run()))


def prepare(where: Namespace, *addresses: str) -> None:
    for address in addresses:
        where.run("ip", "addr", "add", address, "dev", "lo", *(["nodad"] if ":" in address else []))


@pytest.mark.parametrize("instance_ip", [POD, f"[{POD}]"])
def test_over_ipv6_a_probe_comes_from_its_address_on_lo(instance_ip: str) -> None:
    async def main() -> None:
        async with answering(http(200), host=POD) as app:
            assert await probe(app, "httpGet", instance_ip) == (200, [])
            assert app.peers == ["::6"]
            assert app.headers[0] == "Host: localhost"
        async with listening(hang, host=POD) as app:
            assert await probe(app, "tcpSocket", instance_ip) == (200, [])

    with namespace("probes") as pod:
        prepare(pod, f"{POD}/128", "::6/128")
        run_in(pod, main)


def test_over_ipv6_and_tls(tmp_path: Any) -> None:
    async def main() -> None:
        async with answering(http(204), self_signed_server(tmp_path, "http/1.1"), host=POD) as app:
            assert await probe(app, "httpGet", POD, scheme="HTTPS") == (204, [])
            assert app.peers == ["::6"]

    with namespace("probes") as pod:
        prepare(pod, f"{POD}/128", "::6/128")
        run_in(pod, main)


def test_without_that_address_a_probe_goes_out_all_the_same_with_one_warning() -> None:
    async def main() -> None:
        async with answering(http(200), host=POD) as app:
            status, lines = await probe(app, "httpGet", POD)
            assert status == 200
            assert app.peers == [POD]
            [line] = lines
            assert line.startswith("warn probes can't come from ::6 (Cannot assign requested address)")

    with namespace("probes") as pod:
        prepare(pod, f"{POD}/128")
        run_in(pod, main)


def test_localhost_is_both_families() -> None:
    async def main() -> None:
        async with answering(http(200), host="::1") as app:
            assert await probe(app, "httpGet", "") == (200, [])
            assert app.peers == ["::6"]

    with namespace("probes") as pod:
        prepare(pod, "::6/128")
        run_in(pod, main)


def test_interception_that_redirects_the_pods_own_address_spares_a_probe() -> None:
    """Istio's rule in short: what goes over lo to the pod's own address is Envoy's, but not from 127.0.0.6."""

    async def main() -> None:
        async with answering(http(200), host="0.0.0.0") as app, answering(http(418), host="0.0.0.0") as envoy:
            for words in (
                ("-s", "127.0.0.6/32", "-j", "RETURN"),
                ("-d", "10.79.0.1/32", "-p", "tcp", "-j", "REDIRECT", "--to-ports", str(envoy.port)),
            ):
                pod.run("iptables", "-w", "-t", "nat", "-A", "OUTPUT", "-o", "lo", *words)
            assert (await fetch(app.port, "/", host="10.79.0.1")).status == 418, "the rule works"
            assert await probe(app, "httpGet", "10.79.0.1") == (200, [])
            assert app.peers == ["127.0.0.6"]

    with namespace("probes") as pod:
        prepare(pod, "10.79.0.1/32")
        run_in(pod, main)


def test_a_check_of_another_machine_comes_from_an_address_of_this_one() -> None:
    """The kernel lets nothing of 127.0.0.6 leave the machine."""

    async def main() -> None:
        check = HttpCheck(THERE, app.port, "/peer", False, ())
        await check_http(check, "localhost", RecordedLog().scope)

    with namespace("probes") as here, namespace("peer") as there:
        connect(here, f"{HERE}/24", there, f"{THERE}/24")
        with application("there", *there.prefix, host="0.0.0.0") as app:
            run_in(here, main)
