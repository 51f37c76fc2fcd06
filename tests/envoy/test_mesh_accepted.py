"""Everything the local mesh can say, at once: Envoy takes all of it, however connections get to it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.authority import Authority
from tests.support.eventually import eventually
from tests.support.mesh_proxy import mesh_proxy
from tests.support.ports import free_ports
from tests.support.sds_files import write_secrets
from tests.unit.mesh.declared import service_entry

SERVICES = """\
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata: {name: web}
  spec:
    clusterIPs: [10.96.0.1, 'fd00::1']
    selector: {app: web}
    ports:
    - {name: http, port: HTTP, targetPort: 8080}
    - {name: grpc, port: GRPC}
    - {name: tcp, port: TCP}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
  addressType: IPv4
  ports: [{name: http, port: 8080}, {name: grpc, port: 8081}, {name: tcp, port: 8082}]
  endpoints: [{addresses: [10.0.0.1], zone: a}, {addresses: [10.0.0.2], conditions: {ready: false}}]
- apiVersion: networking.istio.io/v1
  kind: WorkloadEntry
  metadata: {name: web}
  spec:
    address: 10.0.0.1
    labels: {app: web, version: v1}
    serviceAccount: web
    locality: eu/a/1
    weight: 3
    ports: {http: 8080, grpc: 8081, tcp: 8082}
- apiVersion: v1
  kind: Service
  metadata: {name: pods}
  spec: {clusterIP: None, ports: [{name: tcp, port: PODS}, {name: http, port: HTTP}]}
- apiVersion: v1
  kind: Endpoints
  metadata: {name: pods}
  subsets: [{addresses: [{ip: 10.0.0.5}], ports: [{name: tcp, port: 80}, {name: http, port: 81}]}]
- apiVersion: v1
  kind: Service
  metadata: {name: outside}
  spec: {type: ExternalName, externalName: localhost, ports: [{name: http, port: HTTP}]}
"""
RULES = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http:
  - name: everything
    match:
    - name: m
      uri: {prefix: /API}
      ignoreUriCase: true
      scheme: {exact: http}
      method: {regex: 'GET|PUT'}
      authority: {prefix: web}
      headers: {x: {exact: '1'}, y: {regex: 'a\\d+'}, z: {}}
      withoutHeaders: {n: {exact: '1'}, o: {}}
      queryParams: {q: {exact: '1'}, r: {regex: '.+'}, s: {}}
      sourceLabels: {app: me}
      sourceNamespace: default
      port: HTTP
    route:
    - destination: {host: web, subset: v1, port: {number: HTTP}}
      weight: 90
      headers: {request: {set: {Host: a.org, x-a: '%DOWNSTREAM_REMOTE_ADDRESS%'}}, response: {remove: [s]}}
    - {destination: {host: web, subset: v2, port: {number: HTTP}}, weight: 10}
    rewrite: {uri: /, authority: b.org}
    timeout: 2s
    retries: {attempts: 3, perTryTimeout: 1s, retryOn: '5xx,409', retryRemoteLocalities: true, backoff: 10ms}
    fault:
      delay: {fixedDelay: 1s, percentage: {value: 0.1}}
      abort: {grpcStatus: UNAVAILABLE, percentage: {value: 1}}
    mirrors: [{destination: {host: outside}, percentage: {value: 5}}, {destination: {host: pods, port: {number: HTTP}}}]
    corsPolicy:
      {allowOrigins: [{regex: '.*'}], allowMethods: [GET], allowHeaders: [x], maxAge: 1h, allowCredentials: true}
    headers: {request: {add: {x-b: '1'}, remove: [x-c]}, response: {set: {x-d: '%PROTOCOL%'}}}
  - match: [{uri: {prefix: /part}}]
    delegate: {name: part}
  - match: [{uri: {exact: /redirect}}]
    redirect:
      {uri: '%PREFIX()%/x', authority: c.org, scheme: https, derivePort: FROM_PROTOCOL_DEFAULT, redirectCode: 303}
  - match: [{uri: {regex: '/direct/.*'}}]
    directResponse: {status: 503, body: {string: gone}}
  - route: [{destination: {host: web, port: {number: HTTP}}, headers: {request: {add: {host: d.org}}}}]
    rewrite: {uriRegexRewrite: {match: '/(\\d+)', rewrite: '/n/\\1'}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: part}
spec:
  http:
  - {match: [{uri: {prefix: /part/a b(c)}}], rewrite: {uri: /}, route: [{destination: {host: outside}}]}
  - {route: [{destination: {host: web, port: {number: GRPC}}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: connections}
spec:
  hosts: [db.example.com, tls.example.com, '*.wild.org']
  tcp:
  - match: [{destinationSubnets: [10.9.0.0/16, 'fd00::/64'], port: DB}]
    route:
    - {destination: {host: db.example.com}, weight: 50}
    - {destination: {host: web, port: {number: TCP}}, weight: 50}
  tls:
  - match: [{sniHosts: [tls.example.com, a.wild.org], port: TLS}]
    route: [{destination: {host: tls.example.com}, weight: 1}, {destination: {host: db.example.com}, weight: 2}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec:
  host: web
  trafficPolicy:
    loadBalancer: {consistentHash: {httpCookie: {name: c, path: /, ttl: 0s}, ringHash: {minimumRingSize: 512}}}
    connectionPool:
      tcp:
        maxConnections: 10
        connectTimeout: 2s
        idleTimeout: 1h
        maxConnectionDuration: 2h
        tcpKeepalive: {probes: 3, time: 60s, interval: 10s}
      http:
        http1MaxPendingRequests: 1
        http2MaxRequests: 2
        maxRequestsPerConnection: 3
        maxRetries: 4
        idleTimeout: 5s
        h2UpgradePolicy: UPGRADE
        maxConcurrentStreams: 6
    outlierDetection:
      consecutive5xxErrors: 5
      consecutiveGatewayErrors: 3
      splitExternalLocalOriginErrors: true
      consecutiveLocalOriginFailures: 2
      interval: 1s
      baseEjectionTime: 10s
      maxEjectionPercent: 50
      minHealthPercent: 10
    portLevelSettings:
    - {port: {number: TCP}, loadBalancer: {simple: RANDOM}}
    - {port: {number: GRPC}, tls: {mode: ISTIO_MUTUAL}, connectionPool: {http: {useClientProtocol: true}}}
  subsets:
  - {name: v1, labels: {version: v1}, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 30s}}}}
  - {name: v2, labels: {version: v2}, trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}}}
  - name: v3
    trafficPolicy: {loadBalancer: {consistentHash: {httpQueryParameterName: q, maglev: {tableSize: 101}}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: simple}
spec: {host: simple.example.com, trafficPolicy: {tls: {mode: SIMPLE}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: mutual}
spec:
  host: mutual.example.com
  trafficPolicy:
    tls:
      mode: MUTUAL
      clientCertificate: PEM/pair
      privateKey: PEM/pair
      caCertificates: PEM/root
      subjectAltNames: [m.org]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: mesh, namespace: istio-system}
spec: {mtls: {mode: PERMISSIVE}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: own}
spec:
  selector: {matchLabels: {app: me}}
  mtls: {mode: STRICT}
  portLevelMtls: {8081: {mode: DISABLE}, 8082: {mode: PERMISSIVE}}
"""
SIDECAR = """\
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: own}
spec:
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
  ingress:
  - {port: {number: IN1, protocol: HTTP, name: a}, defaultEndpoint: 127.0.0.1:8080}
  - {port: {number: IN2, protocol: GRPC, name: b}, defaultEndpoint: 'unix:///x', bind: 127.0.0.2, captureMode: NONE}
  - {port: {number: IN3, protocol: TCP, name: c}, defaultEndpoint: 0.0.0.0:8081}
  - {port: {number: IN4, protocol: TCP, name: d}, defaultEndpoint: 127.0.0.1:8080, captureMode: NONE}
  egress:
  - {port: {number: HTTP, protocol: HTTP}, bind: 127.0.0.4, captureMode: NONE, hosts: ['*/*.svc.cluster.local']}
  - {hosts: ['./*', '*/*']}
"""
NAMES = ("HTTP", "GRPC", "TCP", "PODS", "DB", "TLS", "IN1", "IN2", "IN3", "IN4")


def everything(pem: Path) -> tuple[str, str]:
    """The documents, and a Sidecar. With free ports, since without interception they are opened on this machine."""
    authority = Authority()
    pair = authority.pair("me.org")
    (pem / "pair").write_text(pair.key + pair.chain)
    (pem / "root").write_text(authority.pem)
    ports = dict(zip(NAMES, free_ports(len(NAMES)), strict=True))
    http, tls = ports["HTTP"], ports["TLS"]
    entries = [
        service_entry("db", port=ports["DB"], protocol="TCP", addresses=("10.5.0.1", "10.6.0.0/16", "fd00:5::1")),
        service_entry("tls", port=tls, protocol="TLS", resolution="DNS", endpoint="localhost"),
        service_entry("wild", host="'*.wild.org'", port=tls, protocol="HTTPS", resolution="NONE", endpoint=""),
        service_entry("any", host="'*.any.org'", port=http, resolution="NONE", endpoint=""),
        service_entry("simple", port=http, resolution="DNS", endpoint="localhost"),
        service_entry("mutual", port=http, protocol="HTTP2", resolution="DNS_ROUND_ROBIN", endpoint="localhost"),
        service_entry("six", port=http, endpoint="fd00::7"),
    ]
    text = "---\n".join([SERVICES, RULES, *entries])
    return _filled(text, ports, pem), _filled(SIDECAR, ports, pem)


def _filled(text: str, ports: dict[str, int], pem: Path) -> str:
    for name, number in ports.items():
        for before in ("port: ", "number: "):
            text = text.replace(f"{before}{name}", f"{before}{number}")
    return text.replace("PEM/", f"{pem}/")


BOTH = ("IPv4", "IPv6")
NO_FILES = {"endpoint_files": 0, "route_files": 0}


@pytest.mark.parametrize(
    ("options", "has_sidecar"),
    [
        pytest.param({}, False, id="redirect"),
        pytest.param({"outbound_policy": "REGISTRY_ONLY", **NO_FILES}, True, id="redirect with a Sidecar, inline"),
        pytest.param({"interception_mode": "TPROXY"}, False, id="tproxy"),
        pytest.param({"interception_mode": "NONE"}, True, id="none"),
        pytest.param({"interception_mode": "NONE", **NO_FILES}, False, id="none, inline"),
        pytest.param({"families": ("IPv6",)}, True, id="IPv6"),
        pytest.param({"families": BOTH}, False, id="dual stack"),
        pytest.param({"secrets": ""}, True, id="without an identity"),
    ],
)
def test_everything_is_taken(tmp_path: Path, options: dict[str, Any], has_sidecar: bool) -> None:
    text, sidecar = everything(tmp_path)
    facts: dict[str, Any] = {
        "labels": {"app": "me"},
        "addresses": ("10.0.0.1", "fd00::9"),
        "secrets": write_secrets(tmp_path / "sds", "me", tmp_path / "ca") if "secrets" not in options else "",
        "access_log": str(tmp_path / "access.log"),
        "access_log_format": {"path": "%REQ(:PATH)%", "nested": {"code": "%RESPONSE_CODE%"}},
        "access_log_is_json": True,
        "trace_tags": {"namespace": "default"},
    }
    with mesh_proxy(tmp_path, f"{text}---\n{sidecar}" if has_sidecar else text, **{**facts, **options}) as proxy:
        local = proxy.mesh.local
        assert dict(local.errors) == {}
        reasons = [warning.reason.partition(",")[0] for warning in local.warnings]
        assert reasons == ([] if facts["secrets"] else ["ISTIO_MUTUAL needs an identity", "STRICT needs an identity"])
        names = published(tmp_path / "xds/lds/lds.json")
        eventually(lambda: proxy.listeners() == names)
        clusters = re.findall(r"^(.+)::observability_name", proxy.admin("/clusters"), re.MULTILINE)
        assert set(clusters) == published(tmp_path / "xds/cds/cds.json")
        assert proxy.complaints() == {}
        assert "error_state" not in proxy.admin("/config_dump")


def published(path: Path) -> set[str]:
    return {resource["name"] for resource in json.loads(path.read_text())["resources"]}
