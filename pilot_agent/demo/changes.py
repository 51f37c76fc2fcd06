"""The steps in which something is changed on purpose, and lives: rules, a broken file, settings; and the metrics.

A step does something to the pods, checks that it happened, and yields lines that tell it. It raises DemoError when what
it wanted to show did not happen.
"""

from collections.abc import Iterator

from pilot_agent.demo import documents
from pilot_agent.demo.access_log import AccessLogLine
from pilot_agent.demo.pod import Pod
from pilot_agent.demo.scene import Scene
from pilot_agent.errors import DemoError

TEAPOT = 418


def rule_change(scene: Scene) -> Iterator[str]:
    """A route of sleep's, and what httpbin lets in: written, live, taken back."""
    sleep, httpbin = scene.sleep, scene.httpbin
    scene.stage.write("fault.yaml", documents.fault(TEAPOT))
    took = sleep.until("the fault", lambda: scene.ask().status == TEAPOT)
    line = _last_line(sleep)
    yield f"a VirtualService with a fault, written to a file: live in sleep's Envoy {took:.0f} ms later"
    yield f"  a request gets {TEAPOT}, from sleep's Envoy: flags {line.response_flags}, upstream {line.upstream_host}"
    scene.stage.remove("fault.yaml")
    took = sleep.until("the fault gone", lambda: scene.ask().status == 200)
    yield f"  file removed: 200 again after {took:.0f} ms"
    plain = scene.ask_in_plain_text()
    if plain.status != 200:
        raise DemoError(f"plain text should pass while nothing forbids it, and got: {plain.status} {plain.body}")
    scene.stage.write("strict.yaml", documents.peer_authentication("STRICT"))
    took = httpbin.until("mutual TLS for all", lambda: scene.ask_in_plain_text().status == 0)
    refusal, through = scene.ask_in_plain_text().body, scene.ask().status
    if through != 200:
        raise DemoError(f"with mutual TLS sleep should still be let in, and got {through}")
    yield f"PeerAuthentication STRICT: live in httpbin's Envoy {took:.0f} ms later"
    yield f"  plain text, which got {plain.status} before: {refusal}"
    yield f"  through sleep's Envoy, with its certificate: {through}"
    scene.stage.remove("strict.yaml")
    took = httpbin.until("plain text again", lambda: scene.ask_in_plain_text().status == 200)
    yield f"  file removed: plain text passes again after {took:.0f} ms"


def _last_line(pod: Pod) -> AccessLogLine:
    pod.until("the access log", lambda: any(each.response_code == str(TEAPOT) for each in pod.access_log()), within=5)
    return [each for each in pod.access_log() if each.response_code == str(TEAPOT)][-1]


def broken_file(scene: Scene) -> Iterator[str]:
    sleep = scene.sleep
    whole = documents.service(scene.endpoint)
    sleep.write("httpbin.yaml", whole.replace(f"port: {scene.endpoint.port}", "port: 70000"))

    def refusal() -> list[str]:
        report = sleep.get("/healthz/ready?verbose", sleep.ports.status).body
        return [line for line in report.splitlines() if "httpbin.yaml" in line]

    sleep.until("the refusal", lambda: bool(refusal()))
    yield f"a port that can't be: {refusal()[0]}"
    if scene.ask().status != 200:
        raise DemoError("the last good version does not serve any more")
    yield "  its last good version serves on: 200"
    sleep.write("httpbin.yaml", whole)
    sleep.until("the file to be taken again", lambda: not refusal())


def metrics(scene: Scene) -> Iterator[str]:
    body = scene.httpbin.get("/metrics", scene.httpbin.ports.status).body
    sources = (("agent", "istio_agent_"), ("Envoy", "envoy_"), ("application", "httpbin_"))
    counts = {name: sum(line.startswith(prefix) for line in body.splitlines()) for name, prefix in sources}
    if not all(counts.values()):
        raise DemoError(f"a source is missing in the merged metrics: {counts}")
    shares = ", ".join(f"{count} samples of {name}" for name, count in counts.items())
    yield f"one scrape of httpbin's agent, three sources: {shares}"


def settings_change(scene: Scene) -> Iterator[str]:
    """Of httpbin, under load: Envoy is replaced by a hot restart."""
    pod = scene.httpbin
    name = 'istio_agent_envoy_restarts_total{reason="hot-restart"} 1'
    with scene.load() as load:
        scene.until_asked(load)
        pod.write_settings(concurrency=2)
        took = pod.until("the hot restart", lambda: name in pod.get("/metrics", pod.ports.status).body)
        scene.until_asked(load)
    if load.failed:
        raise DemoError(f"of {load.requests} requests during the hot restart some failed: {load.failed}")
    yield f"httpbin's concurrency set to 2: hot restart in {took:.0f} ms, {load.requests} requests, none failed"
