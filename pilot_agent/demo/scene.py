"""sleep and httpbin: the two pods of the demo on a stage, one service between them, and ways to ask it."""

from pilot_agent.demo import documents, envoy_view
from pilot_agent.demo.documents import CLUSTER_IP, Endpoint
from pilot_agent.demo.http_request import Answer, request
from pilot_agent.demo.load import Load
from pilot_agent.demo.passage import Passage
from pilot_agent.demo.pod import PROXY_USER
from pilot_agent.demo.process import User
from pilot_agent.demo.spec import Spec
from pilot_agent.demo.stage import Stage, free_ports

SECRET_TTL_S = 12
PORT, TARGET_PORT = 8000, 80
SOME = 60


class Scene:
    """Made on a stage that is not started yet; `mode` is how httpbin's traffic is captured. What the steps have to tell
    each other is here too."""

    def __init__(self, stage: Stage, mode: str = "REDIRECT") -> None:
        self.stage, self.is_isolated = stage, stage.is_isolated
        ports = (PORT, TARGET_PORT, TARGET_PORT) if self.is_isolated else tuple(free_ports(3, PORT))
        common = {"SECRET_TTL": f"{SECRET_TTL_S}s", "ECC_SIGNATURE_ALGORITHM": "ECDSA"}
        # The access log within a moment; and nobody waits for the idle connections of an Envoy that is to end.
        quick = {"fileFlushInterval": "0.05s", "terminationDrainDuration": "1s"}
        scrape = f'{{"scrape": "true", "port": "{ports[2]}", "path": "/metrics"}}'
        self.sleep = stage.pod(Spec("sleep", labels={"app": "sleep"}, variables=common, proxy_config=quick))
        self.httpbin = stage.pod(
            Spec(
                "httpbin",
                labels=documents.LABELS,
                application=ports[2],
                mode=mode,
                variables={**common, "ISTIO_PROMETHEUS_ANNOTATIONS": scrape},
                proxy_config=quick,
            )
        )
        self.endpoint = Endpoint(ports[0], self.httpbin.address, ports[1], ports[2])
        self.url = f"http://httpbin:{self.endpoint.port}/hostname"
        stage.resolve("httpbin", CLUSTER_IP)
        stage.write("httpbin.yaml", documents.service(self.endpoint))
        if not self.is_isolated:
            stage.write("sidecars.yaml", documents.sidecars(self.endpoint))
        self.first_certificate: envoy_view.Certificate | None = None
        self.first_passage: Passage | None = None

    @property
    def _service_address(self) -> str:
        return CLUSTER_IP if self.is_isolated else "127.0.0.1"

    def ask(self, path: str = "/hostname") -> Answer:
        """sleep asks httpbin, through both Envoys, on a connection of its own."""
        return self.sleep.place.call(lambda: self._request(path))

    def _request(self, path: str = "/hostname") -> Answer:
        port = self.endpoint.port
        return request(self._service_address, port, path, headers={"Host": f"httpbin:{port}"})

    def curl(self) -> Answer:
        """The same from curl."""
        return self.sleep.curl(self.url, *self.to_service)

    @property
    def to_service(self) -> tuple[str, ...]:
        """Options for curl where no hosts file knows `httpbin`."""
        return () if self.is_isolated else ("--connect-to", f"::127.0.0.1:{self.endpoint.port}")

    def ask_in_plain_text(self) -> Answer:
        """Past sleep's Envoy, which then can't encrypt: as the user that the rules let pass."""
        url = f"http://{self.endpoint.address}:{self.endpoint.target_port}/hostname"
        return self.sleep.curl(url, user=User(PROXY_USER, PROXY_USER))

    def until_asked(self, load: Load) -> None:
        """Wait until so many more requests were made that something would show in them."""
        enough = load.requests + SOME
        self.sleep.until(f"{SOME} requests", lambda: load.requests >= enough)

    def load(self) -> Load:
        """Clients in sleep that ask httpbin."""
        return Load(self.sleep.place.call, self._request)
