"""The documents of the demo, as its pods get them: one service, its one workload, and the rules that come and go."""

from typing import NamedTuple

NAMESPACE = "demo"
CLUSTER_IP = "10.96.0.10"
HOST = f"httpbin.{NAMESPACE}.svc.cluster.local"
LABELS = {"app": "httpbin", "security.istio.io/tlsMode": "istio"}

_SERVICE = """\
apiVersion: v1
kind: Service
metadata: {{name: httpbin, namespace: {namespace}}}
spec:
  clusterIP: {cluster_ip}
  selector: {{app: httpbin}}
  ports: [{{name: http, port: {port}, targetPort: {target_port}}}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: httpbin-0, namespace: {namespace}, labels: {{app: httpbin}}}}
spec:
  address: {address}
  ports: {{http: {target_port}}}
  labels: {{app: httpbin, security.istio.io/tlsMode: istio}}
  serviceAccount: httpbin
"""

_SIDECARS = """\
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: sleep, namespace: {namespace}}}
spec:
  workloadSelector: {{labels: {{app: sleep}}}}
  egress:
  - port: {{number: {port}, protocol: HTTP, name: http}}
    bind: 127.0.0.1
    captureMode: NONE
    hosts: ["./*"]
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: httpbin, namespace: {namespace}}}
spec:
  workloadSelector: {{labels: {{app: httpbin}}}}
  ingress:
  - port: {{number: {target_port}, protocol: HTTP, name: http}}
    bind: 127.0.0.1
    captureMode: NONE
    defaultEndpoint: 127.0.0.1:{application}
  egress:
  - hosts: ["~/*"]
"""

FAULT = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: httpbin, namespace: {namespace}}}
spec:
  hosts: [httpbin]
  http:
  - match: [{{uri: {{prefix: /hostname}}}}]
    fault: {{abort: {{httpStatus: {status}, percentage: {{value: 100}}}}}}
    route: [{{destination: {{host: httpbin}}}}]
  - route: [{{destination: {{host: httpbin}}}}]
"""

STRICT = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: httpbin, namespace: {namespace}}}
spec:
  selector: {{matchLabels: {{app: httpbin}}}}
  mtls: {{mode: {mode}}}
"""


class Endpoint(NamedTuple):
    """Of the service: its port, and where its one workload is. `application` is the port behind its proxy."""

    port: int
    address: str
    target_port: int
    application: int


def service(endpoint: Endpoint) -> str:
    return _SERVICE.format(
        namespace=NAMESPACE,
        cluster_ip=CLUSTER_IP,
        port=endpoint.port,
        target_port=endpoint.target_port,
        address=endpoint.address,
    )


def sidecars(endpoint: Endpoint) -> str:
    """For pods whose traffic nothing captures: Envoy opens the ports itself."""
    return _SIDECARS.format(
        namespace=NAMESPACE, port=endpoint.port, target_port=endpoint.target_port, application=endpoint.application
    )


def fault(status: int) -> str:
    return FAULT.format(namespace=NAMESPACE, status=status)


def peer_authentication(mode: str) -> str:
    return STRICT.format(namespace=NAMESPACE, mode=mode)
