"""An agent in mesh mode with an identity: a fake CA, a token, mounted certificates, and what it says of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from tests.support.agents import AgentProcess
from tests.support.authority import Authority, Pair
from tests.support.confidential import confide
from tests.support.mounts import Mount
from tests.support.ports import free_port
from tests.support.sds_client import SdsClient
from tests.support.tls_envoy import over_grpc, tls_bootstrap, write_bootstrap

SPIFFE_ID = "spiffe://cluster.local/ns/foo/sa/bar"
TOKEN = "eyJhbGciOiJub25lIn0.e30.not-a-signature-but-long-enough"
WORKLOAD_CERTS = "var/run/secrets/workload-spiffe-credentials"


class Authenticating(Protocol):
    """A CA: a `FakeIstiod`, or one in another process."""

    @property
    def address(self) -> str: ...
    @property
    def root_file(self) -> Path: ...


def prepare(agent: AgentProcess, istiod: Authenticating | None = None, **env: str) -> AgentProcess:
    """Mesh mode, as SPIFFE_ID; with EC keys, which take no time. `istiod` is its CA; without one there is none."""
    agent.is_local = False
    agent.env |= {"POD_NAMESPACE": "foo", "SERVICE_ACCOUNT": "bar", "ECC_SIGNATURE_ALGORITHM": "ECDSA"}
    agent.env |= {"EXIT_ON_ZERO_ACTIVE_CONNECTIONS": "true", "MINIMUM_DRAIN_DURATION": "0s", **env}
    if istiod is not None:
        agent.env |= {"CA_ADDR": istiod.address, "CA_ROOT_CA": str(istiod.root_file)}
        write_token(agent, TOKEN)
    else:
        agent.env |= {"FILE_MOUNTED_CERTS": "true"} if "FILE_MOUNTED_CERTS" not in env else {}
    return agent


def write_token(agent: AgentProcess, token: str) -> Path:
    path = agent.directory / "var/run/secrets/tokens/istio-token"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(token)
    confide(token)
    return path


def socket_of(agent: AgentProcess) -> Path:
    return agent.directory / "var/run/secrets/workload-spiffe-uds/socket"


def sds(agent: AgentProcess) -> SdsClient:
    return SdsClient(socket_of(agent))


def certs(agent: AgentProcess) -> dict[str, Any]:
    """/debug/certs."""
    found: dict[str, Any] = json.loads(agent.fetch("/debug/certs")[1])
    return found


def described(agent: AgentProcess, name: str = "default") -> dict[str, Any]:
    """What /debug/certs says of one name; empty where it knows nothing of it."""
    return next((each for each in certs(agent)["certificates"] if each["name"] == name), {})


def serial(agent: AgentProcess) -> str | None:
    """Of the workload's certificate; None while there is none, or the agent does not answer yet."""
    found: str | None = described(agent).get("serial")
    return found


def gate(agent: AgentProcess) -> str | None:
    """Why the gate `certificates` is closed."""
    gates = json.loads(agent.fetch("/healthz/ready", Accept="application/json")[1])["gates"]
    reason: str | None = next(each["reason"] for each in gates if each["name"] == "certificates")
    return reason


def notes(agent: AgentProcess) -> list[str]:
    found: list[str] = json.loads(agent.fetch("/healthz/ready", Accept="application/json")[1])["notes"]
    return found


def failures(agent: AgentProcess, kind: str) -> float:
    return agent.metric(f'istio_agent_cert_failures_total{{reason="{kind}"}}')


class Mounted:
    """A secret mounted as the workload's certificates, rotated as Kubernetes does."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority("mounted root")
        self.directory = directory
        self._mount = Mount(directory)

    def rotate(self, pair: Pair | None = None, root: str | None = None) -> Pair:
        """Publish a new pair (or this one); the pair."""
        pair = pair or self.authority.pair(SPIFFE_ID)
        files = {"cert-chain__pem": pair.chain, "key__pem": pair.key, "root-cert__pem": root or self.authority.pem}
        self._mount.publish(**files)
        return pair


def serve_tls(agent: AgentProcess, **more: Any) -> int:
    """Make its Envoy a TLS server with `default` and `ROOTCA` over SDS, by a customConfigFile; the server's port."""
    port = free_port()
    key_pair, roots = more.get("key_pair", "default"), more.get("roots", "ROOTCA")
    source = {key_pair: over_grpc(), roots: over_grpc()}
    write_bootstrap(agent.directory / "custom.json", tls_bootstrap(agent.ports.admin, port, sds=source, **more))
    agent.write_mesh(customConfigFile=str(agent.directory / "custom.json"))
    return port


Make = Callable[..., AgentProcess]
