"""`proxy-config`: which view takes what, where a dump comes from, and what is said when there is none."""

import json
from pathlib import Path

import pytest

from pilot_agent.commands.line import find
from pilot_agent.commands.table import COMMANDS
from pilot_agent.commands.view_flags import TAKEN, VIEW_FLAGS, VIEWS
from pilot_agent.inspect.views import SINGLE
from tests.support.dumps import RECORDED, recorded
from tests.support.ports import free_port
from tests.unit.commands.runner import COMMAND, Peer, answer, peer, run

DUMP = str(RECORDED / "config_dump.json")
STATUSES = str(RECORDED / "clusters.json")
LOGGERS = b"active loggers:\n  http: info\n  admin: warning\n"


def envoy(request: bytes) -> bytes:
    path = request.split(b" ")[1]
    bodies = {
        b"/config_dump": recorded("config_dump.json").encode(),
        b"/config_dump?include_eds": recorded("config_dump.json").encode(),
        b"/clusters?format=json": recorded("clusters.json").encode(),
    }
    return answer("200 OK", LOGGERS if path.startswith(b"/logging") else bodies[path])


def asked(made: Peer) -> list[str]:
    return [" ".join(request.split(b" ")[n].decode() for n in (0, 1)) for request in made.requests]


def test_the_tables_know_the_same_views() -> None:
    assert {*SINGLE, "all", "log"} == {*TAKEN} == {*VIEWS.values()}
    attributes = {flag.attribute for flag in VIEW_FLAGS}
    assert attributes == {name for taken in TAKEN.values() for name in taken}
    command = find("pc")
    assert command is find("proxy-config") and command in COMMANDS
    assert command.words.choices == tuple(TAKEN)


@pytest.mark.parametrize(
    ("word", "file", "expected"),
    [
        ("l", DUMP, "listeners.txt"),
        ("route", DUMP, "routes.txt"),
        ("cluster", DUMP, "clusters.txt"),
        ("ep", STATUSES, "endpoints.txt"),
    ],
)
def test_a_file_needs_no_envoy_and_prints_what_istioctl_prints(word: str, file: str, expected: str) -> None:
    assert run("pc", word, "-f", file) == (0, recorded(expected), "")


def test_a_running_envoy_is_asked_for_what_the_view_needs() -> None:
    with peer(envoy) as made:
        port = str(made.port)
        assert run("proxy-config", "routes", "--adminPort", port) == (0, recorded("routes.txt"), "")
        assert run("pc", "endpoints", "--proxy-admin-port", port).out == recorded("endpoints.txt")
        everything = run("pc", "a", "--adminPort", port).out
    assert everything.partition("\nRESOURCE NAME")[0] == recorded("all.txt").partition("\nRESOURCE NAME")[0]
    assert asked(made) == ["GET /config_dump", "GET /clusters?format=json", "GET /config_dump?include_eds"]


def test_standard_input() -> None:
    import subprocess

    done = subprocess.run(
        [*COMMAND, "pc", "c", "-f", "-"], input=Path(DUMP).read_bytes(), capture_output=True, check=True
    )
    assert done.stdout.decode() == recorded("clusters.txt")


def test_documents() -> None:
    found = json.loads(run("pc", "c", "-f", DUMP, "--direction", "outbound", "-o", "json").out)
    assert [each["name"] for each in found] == ["outbound|8000||httpbin.demo.svc.cluster.local"]
    assert found[0]["edsClusterConfig"]["serviceName"] == found[0]["name"] and "@type" not in found[0]
    assert json.loads(run("pc", "b", "-f", DUMP).out)["bootstrap"]["node"]["metadata"]["ISTIO_VERSION"] == "unknown"
    assert run("pc", "b", "-f", DUMP, "-o", "short").out == "".join(recorded("all.txt").splitlines(True)[:2])
    assert run("pc", "a", "-f", DUMP, "-o", "json").out == recorded("config_dump.json") + "\n"
    assert run("pc", "ep", "-f", STATUSES, "--status", "unhealthy", "-o", "yaml").out == "[]\n"
    assert "clusterName: agent" in run("pc", "ep", "-f", DUMP, "--cluster", "agent", "-o", "yaml").out


@pytest.mark.parametrize(
    ("args", "requests"),
    [
        ((), ["POST /logging"]),
        (("--level", "debug"), ["POST /logging", "POST /logging?level=debug"]),
        (
            ("--level", "info,http:trace"),
            ["POST /logging", "POST /logging?level=info", "POST /logging?paths=http:trace"],
        ),
        (("-r",), ["POST /logging", "POST /logging?level=warning"]),
    ],
)
def test_log_levels_are_set_and_told(args: tuple[str, ...], requests: list[str]) -> None:
    with peer(envoy) as made:
        ended = run("pc", "log", "--adminPort", str(made.port), *args)
    assert ended == (0, "active loggers:\n  admin: warning\n  http: info\n", "")
    assert asked(made) == requests


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "missing argument 'all|bootstrap|clusters|endpoints|listeners|log|routes|secrets'"),
        (("foo",), 'unknown view "foo": there are all, bootstrap, '),
        (("listner",), 'did you mean "listeners"?'),
        (("l", "pod-1.demo"), "got unexpected extra argument (pod-1.demo)"),
        (("l", "--port", "http"), "invalid value for --port: 'http' is not an integer"),
        (("l", "--port", "-1"), "invalid value for --port: -1 is too small"),
        (("l", "--port", "65536"), "--port 65536 is no port: the largest is 65535"),
        (("l", "--adminPort", "65536"), "--adminPort 65536 is no port"),
        (("l", "-o", "wide"), "invalid value for --output: 'wide' is not one of json, yaml, short"),
        (("routes", "--fqdn", "a"), "--fqdn is not for routes, but for all, clusters"),
        (("log", "-f", DUMP), "--file is not for log, but for all, bootstrap, "),
        (("secrets", "--level", "debug"), "--level is not for secrets, but for log"),
        (("log", "--level", "loud"), "--level 'loud': 'loud' is not one of trace, "),
        (("log", "--level", "info", "--reset"), "--level and --reset exclude each other"),
        (("l", "-f", "/nowhere"), "--file /nowhere: No such file or directory; give a file that holds "),
        (("l", "-f", "/"), "--file /: Is a directory; give a file that holds "),
        (("l", "-f", __file__), f"--file {__file__} is no JSON ("),
        (("r", "-f", STATUSES), f"--file {STATUSES} is an answer of /clusters, which only endpoints shows; "),
        (("a", "-f", STATUSES), f"--file {STATUSES} is an answer of /clusters, which only endpoints shows; "),
    ],
    ids=lambda value: " ".join(value)[:20] if isinstance(value, tuple) else "",
)
def test_what_cannot_be_done_is_one_line_and_255(args: tuple[str, ...], said: str) -> None:
    code, out, err = run("proxy-config", *args)
    assert (code, out) == (255, "")
    assert err.startswith("Error: ") and said in err and err.count("\n") == 1


def test_an_object_in_an_object_a_thousand_times_is_no_dump(tmp_path: Path) -> None:
    deep = '{"a":' * 950 + "1" + "}" * 950
    section = f'{{"@type":"type.googleapis.com/envoy.admin.v3.BootstrapConfigDump","bootstrap":{deep}}}'
    (tmp_path / "deep.json").write_text(f'{{"configs":[{section}]}}')
    code, out, err = run("pc", "b", "-f", str(tmp_path / "deep.json"))
    assert (code, out) == (255, "") and "nested too deeply" in err


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (answer("404 Not Found", b"no\nsuch"), ": HTTP status code 404: no such; is this Envoy's admin interface?"),
        (answer("200 OK", b"<html>"), " is no JSON (Expecting value: line 1 column 1 (char 0)); "),
        (answer("200 OK", b'{"a": 1}'), " is no dump of Envoy: it has no list "),
        (b"SSH-2.0\r\n", ": not an HTTP answer: "),
    ],
)
def test_another_server_is_told_from_envoy(reply: bytes, said: str) -> None:
    with peer(lambda _: reply) as made:
        code, out, err = run("pc", "l", "--adminPort", str(made.port))
    assert (code, out) == (255, "")
    assert err.startswith(f"Error: GET http://localhost:{made.port}/config_dump{said}") and err.count("\n") == 1


@pytest.mark.parametrize("view", ["listeners", "log"])
def test_nobody_listens(view: str) -> None:
    code, out, err = run("pc", view, "--adminPort", str(free_port()))
    assert (code, out) == (255, "")
    assert "connection refused; is Envoy running here" in err and err.count("\n") == 1


def test_loggers_of_another_server() -> None:
    with peer(lambda _: answer("200 OK", b"hello")) as made:
        ended = run("pc", "log", "--adminPort", str(made.port))
    assert (ended.code, ended.out) == (255, "") and "the answer names no loggers" in ended.err
