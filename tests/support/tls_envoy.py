"""A bootstrap whose Envoy takes its certificates over SDS: a TLS server that answers, and a TLS client to a peer.

Given to the agent as customConfigFile, so that a test needs no control plane to see Envoy use what the agent serves.
"""

import json
import socket
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography import x509

from tests.support.authority import Pair

_TYPES = "type.googleapis.com/envoy.extensions."
_HTTP2 = f"{_TYPES}upstreams.http.v3.HttpProtocolOptions"
SDS_SOCKET = "./var/run/secrets/workload-spiffe-uds/socket"
ANSWER = "this is the server"


def over_grpc() -> dict[str, Any]:
    """The sds_config of a mesh."""
    grpc = {"envoy_grpc": {"cluster_name": "sds-grpc"}}
    source = {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [grpc]}
    return {"api_config_source": source, "resource_api_version": "V3"}


def from_file(path: Path) -> dict[str, Any]:
    """The sds_config of local mode."""
    source = {"path": str(path), "watched_directory": {"path": str(path.parent)}}
    return {"path_config_source": source, "resource_api_version": "V3"}


def tls_bootstrap(
    admin_port: int,
    server_port: int,
    *,
    sds: dict[str, dict[str, Any]],
    key_pair: str = "default",
    roots: str = "ROOTCA",
    peer: tuple[int, int] | None = None,
    trusts: str = "",
    sds_socket: str = SDS_SOCKET,
) -> dict[str, Any]:
    """A listener on `server_port` that requires a client certificate and answers ANSWER.

    `sds` has the sds_config of `key_pair` and of `roots`. With `peer` (a plain port of ours, the server port of the
    other) a second listener passes requests on over mutual TLS. `trusts`: the only SPIFFE id that peers may have.
    """
    common = {
        "tls_certificate_sds_secret_configs": [{"name": key_pair, "sds_config": sds[key_pair]}],
        "combined_validation_context": {
            "default_validation_context": _matcher(trusts),
            "validation_context_sds_secret_config": {"name": roots, "sds_config": sds[roots]},
        },
    }
    server = {
        "@type": f"{_TYPES}transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": common,
    }
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": ANSWER}}}
    listeners = [_listener("server", server_port, route, {"name": "tls", "typed_config": server})]
    clusters = [_sds_cluster(sds_socket)]
    if peer is not None:
        plain_port, peer_port = peer
        client = {"@type": f"{_TYPES}transport_sockets.tls.v3.UpstreamTlsContext", "common_tls_context": common}
        clusters.append(_peer_cluster(peer_port, {"name": "tls", "typed_config": client}))
        listeners.append(
            _listener("client", plain_port, {"match": {"prefix": "/"}, "route": {"cluster": "peer"}}, None)
        )
    return {
        "node": {"id": "sidecar~127.0.0.1~test.test~test.svc", "cluster": "test"},
        "admin": {"address": _address(admin_port)},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }


def _matcher(trusts: str) -> dict[str, Any]:
    if not trusts:
        return {}
    return {"match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": trusts}}]}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _assignment(name: str, address: dict[str, Any]) -> dict[str, Any]:
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}


def _sds_cluster(path: str) -> dict[str, Any]:
    options = {"@type": _HTTP2, "explicit_http_config": {"http2_protocol_options": {}}}
    return {
        "name": "sds-grpc",
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        "load_assignment": _assignment("sds-grpc", {"pipe": {"path": path}}),
    }


def _peer_cluster(port: int, tls: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "peer",
        "type": "STATIC",
        "connect_timeout": "2s",
        "transport_socket": tls,
        "load_assignment": _assignment("peer", _address(port)),
    }


def _listener(name: str, port: int, route: dict[str, Any], tls: dict[str, Any] | None) -> dict[str, Any]:
    router = {"@type": f"{_TYPES}filters.http.router.v3.Router"}
    manager = {
        "@type": f"{_TYPES}filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
        "route_config": {"virtual_hosts": [{"name": name, "domains": ["*"], "routes": [route]}]},
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": {"uri": True},
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    chain = {"filters": filters, **({"transport_socket": tls} if tls else {})}
    return {"name": name, "address": _address(port), "filter_chains": [chain]}


def write_bootstrap(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document))


class TlsConnection:
    """An open connection to a server, with what its certificate says; `request` may be called again and again."""

    def __init__(self, port: int, client: Pair, root: str, address: str = "127.0.0.1") -> None:
        context = client_context(client, root)
        raw = socket.create_connection((address, port), timeout=5)
        try:
            self._socket = context.wrap_socket(raw)
        except BaseException:
            raw.close()
            raise
        der = self._socket.getpeercert(binary_form=True)
        assert der is not None
        certificate = x509.load_der_x509_certificate(der)
        self.serial = f"{certificate.serial_number:x}"
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.spiffe_id = names.get_values_for_type(x509.UniformResourceIdentifier)[0]

    def request(self) -> str:
        """The body of one answer."""
        self._socket.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(ANSWER.encode()):
            part = self._socket.recv(4096)
            if not part:
                raise ConnectionError(f"the connection ended after {answer!r}")
            answer += part
        return answer.partition(b"\r\n\r\n")[2].decode()

    def close(self) -> None:
        self._socket.close()


@contextmanager
def tls_connection(port: int, client: Pair, root: str, address: str = "127.0.0.1") -> Iterator[TlsConnection]:
    connection = TlsConnection(port, client, root, address)
    try:
        yield connection
    finally:
        connection.close()


def client_context(client: Pair, root: str) -> ssl.SSLContext:
    """Shows the client's pair, and trusts `root` for any name: SPIFFE has none that TLS would check."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=root)
    with tempfile.TemporaryDirectory() as directory:
        pem = Path(directory) / "client.pem"
        pem.write_text(client.key + client.chain)
        context.load_cert_chain(pem)
    return context
