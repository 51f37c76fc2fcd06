"""An agent in a mesh of one service: what a fake istiod pushes for it, and what agent and Envoy say of it."""

import json
import os
import urllib.error
import urllib.request
from typing import Any

from tests.support.agents import AgentProcess
from tests.support.envoy_binary import envoy_binary
from tests.support.eventually import eventually
from tests.support.fake_ads import CDS, EDS, LDS, RDS, FakeAds, RecordedStream, cluster, endpoints, listener, route
from tests.support.fake_istiod import FakeIstiod
from tests.support.identities import prepare


def one_service(ads: FakeAds, port: int, target: int) -> None:
    """A listener on `port` that leads to what serves on `target`."""
    ads.set(CDS, "app", cluster("app"))
    ads.set(EDS, "app", endpoints("app", target))
    ads.set(RDS, "app-route", route("app-route", cluster="app"))
    ads.set(LDS, "app-listener", listener("app-listener", port, "app-route"))


def in_mesh(agent: Any, istiod: FakeIstiod, **env: str) -> AgentProcess:
    """One with a real Envoy, made by the fixture `agent`; not started yet."""
    running = prepare(agent(binary=envoy_binary()), istiod, XDS_ROOT_CA=str(istiod.root_file), **env)
    running.write_mesh(discoveryAddress=istiod.address)
    return running


def get(port: int) -> str:
    """What is answered, or with which code it was refused. OSError where nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return str(error.code)


def xds(running: AgentProcess) -> dict[str, Any]:
    """/debug/xds."""
    found: dict[str, Any] = json.loads(running.fetch("/debug/xds")[1])
    return found


def type_state(running: AgentProcess, type_url: str) -> dict[str, Any]:
    """What /debug/xds says of a type on the only stream; OSError while there is no such stream."""
    streams = xds(running)["streams"]
    if len(streams) != 1:
        raise OSError(f"{len(streams)} streams")
    found: dict[str, Any] = streams[0]["types"].get(type_url.removeprefix("type.googleapis.com/"), {})
    return found


def stream_of(istiod: FakeIstiod) -> RecordedStream:
    """The only one of the agent."""
    (stream,) = istiod.ads.open_streams()
    return stream


def pushes_arrive(istiod: FakeIstiod, running: AgentProcess) -> None:
    """A cluster that is new gets as far as Envoy, in time."""
    name = f"new-{len(istiod.ads.names(CDS))}"
    istiod.ads.set(CDS, name, cluster(name, 1))
    eventually(lambda: f"{name}::" in running.fetch("/clusters", port=running.ports.admin)[1])


def open_descriptors(running: AgentProcess) -> int:
    return len(os.listdir(f"/proc/{running.pid}/fd"))
