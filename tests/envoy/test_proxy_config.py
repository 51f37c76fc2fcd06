"""`proxy-config` of a real Envoy: every view shows what istiod pushed, and levels change."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.support.agents import AgentProcess
from tests.support.eventually import eventually
from tests.support.fake_istiod import FakeIstiod
from tests.support.meshes import get, in_mesh, one_service
from tests.support.ports import free_port
from tests.unit.commands.runner import run

MakeAgent = Callable[..., AgentProcess]


def test_every_view_of_a_running_envoy(agent: MakeAgent, istiod: FakeIstiod, app: int, tmp_path: Path) -> None:
    port = free_port()
    one_service(istiod.ads, port, app)
    running = in_mesh(agent, istiod).start().until_ready()
    eventually(lambda: get(port) == "one")

    def view(*args: str) -> str:
        code, out, err = run("pc", *args, "--adminPort", str(running.ports.admin))
        assert (code, err) == (0, "")
        return out

    def rows(*args: str) -> list[list[str]]:
        return [line.split() for line in view(*args).splitlines()]

    assert rows("listeners", "--port", str(port))[1:] == [["127.0.0.1", str(port), "ALL", "Route:", "app-route"]]
    assert ["app-route", "all", "*", "/*"] in rows("routes")
    assert rows("clusters", "--fqdn", "app")[1:] == [["app", "-", "-", "-", "EDS"]]
    assert rows("endpoints", "--cluster", "app")[1:] == [[f"127.0.0.1:{app}", "HEALTHY", "OK", "app"]]
    assert view("secrets") == "No active or warming secrets found.\n"
    assert view("bootstrap", "-o", "short").splitlines()[-1].startswith("Envoy Version: ")
    everything = view("all")
    for line in (
        f"listener/app-listener 127.0.0.1 {port} ALL Route: app-route",
        f"endpoint/127.0.0.1:{app} HEALTHY app",
    ):
        assert line in [" ".join(each.split()) for each in everything.splitlines()]
    dump = tmp_path / "dump.json"
    dump.write_text(view("all", "-o", "json"))
    assert run("pc", "all", "-f", str(dump)).out == everything
    (found,) = json.loads(view("endpoints", "--cluster", "app", "-o", "json"))
    assert found["hostStatuses"][0]["address"]["socketAddress"]["portValue"] == app
    assert json.loads(view("bootstrap"))["bootstrap"]["admin"]["address"]["socketAddress"]["portValue"]

    assert ["admin:", "warning"] in rows("log")
    changed = rows("log", "--level", "error,admin:debug,http:info")
    assert ["admin:", "debug"] in changed and ["http:", "info"] in changed and ["router:", "error"] in changed
    assert rows("log") == changed
    code, out, err = run("pc", "log", "--level", "htp:debug", "--adminPort", str(running.ports.admin))
    assert (code, out) == (255, "") and "Envoy has no logger 'htp'; did you mean \"http\"?" in err
    assert {level for _, level in rows("log", "--reset")[1:]} == {"warning"}
    assert running.stop() == 0
