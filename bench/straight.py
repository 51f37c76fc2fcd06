"""Envoy straight to the control plane, without an agent: what the agent's xDS proxy is measured against.

Its bootstrap and command line are those the agent gave its own Envoy, so that both do the same work for a push, but
for where ADS is, its ports, and a ready listener that answers 200 itself.
"""

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench.ads_server import SERVER_NAME, Server
from tests.support.agents import AgentProcess
from tests.support.fake_ads import HOST
from tests.support.ports import free_ports

_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
_OWN = ("-c", "--config-path", "--base-id", "--base-id-path", "--restart-epoch")
"""Flags with a value that speak of one run, or of hot restart."""


class Model(NamedTuple):
    """How an agent started its Envoy."""

    bootstrap: dict[str, Any]
    argv: Sequence[str]
    ready: int
    """The port of its ready listener."""


def model_of(agent: AgentProcess) -> Model:
    """Of one that runs, with its Envoy started."""
    argv = Path(f"/proc/{agent.envoys()[0]}/cmdline").read_text().split("\0")[:-1]
    flag = next(flag for flag in ("-c", "--config-path") if flag in argv)
    bootstrap = json.loads((agent.directory / argv[argv.index(flag) + 1]).read_text())
    kept = [argv[0], "--disable-hot-restart"]
    position = 1
    while position < len(argv):
        if argv[position] in _OWN:
            position += 1
        elif argv[position] != "--use-dynamic-base-id":
            kept.append(argv[position])
        position += 1
    return Model(bootstrap, kept, agent.ports.ready)


class StraightEnvoy(NamedTuple):
    pid: int
    began: float
    """The monotonic time of its exec."""
    admin: int
    ready: int


@contextmanager
def straight(model: Model, server: Server, *, is_secure: bool) -> Iterator[StraightEnvoy]:
    admin, ready, prometheus = free_ports(3)
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory) / "envoy.json"
        config.write_text(json.dumps(_bootstrap(model, server, is_secure, admin, ready, prometheus)))
        began = time.monotonic()
        envoy = subprocess.Popen(
            [*model.argv, "-c", str(config)], cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            yield StraightEnvoy(envoy.pid, began, admin, ready)
        finally:
            envoy.kill()
            envoy.wait()


def _bootstrap(
    model: Model, server: Server, is_secure: bool, admin: int, ready: int, prometheus: int
) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(model.bootstrap))
    made["admin"]["address"]["socket_address"]["port_value"] = admin
    for listener in made["static_resources"]["listeners"]:
        is_ready = listener["address"]["socket_address"]["port_value"] == model.ready
        listener["address"]["socket_address"]["port_value"] = ready if is_ready else prometheus
        listener.pop("additional_addresses", None)
        if is_ready:
            _answer_itself(listener)
    (ads,) = (each for each in made["static_resources"]["clusters"] if each["name"] == "xds-grpc")
    address = {"socket_address": {"address": HOST, "port_value": server.secure if is_secure else server.plain}}
    ads["load_assignment"]["endpoints"] = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    if is_secure:
        context = {"validation_context": {"trusted_ca": {"filename": str(server.root_file)}}, "alpn_protocols": ["h2"]}
        typed = {"@type": _TLS, "sni": SERVER_NAME, "common_tls_context": context}
        ads["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": typed}
    return made


def _answer_itself(listener: dict[str, Any]) -> None:
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    for host in manager["route_config"]["virtual_hosts"]:
        host["routes"] = [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]
