"""Documents as text for the tests of their readers, and a whole one of every kind, with every field that is read."""

import pytest

from pilot_agent.mesh.model import Document, DocumentRefused, Resource
from pilot_agent.mesh.reading import kinds
from pilot_agent.mesh.reading.kinds import KINDS


def read(text: str) -> Document:
    return kinds.read("a.yaml", text.encode())


def read_one(text: str) -> Resource:
    (resource,) = read(text).resources
    return resource


def refusal(text: str) -> str:
    with pytest.raises(DocumentRefused) as caught:
        read(text)
    return str(caught.value)


def warnings(text: str) -> list[str]:
    return [str(warning) for warning in read(text).warnings]


def document(kind: str, body: str, name: str = "x") -> str:
    """Four lines of envelope, then `body`: `spec: ...`, from line 4 on."""
    return f"apiVersion: {KINDS[kind].versions[0]}\nkind: {kind}\nmetadata: {{name: {name}, namespace: demo}}\n{body}\n"


SERVICE_ENTRY = document(
    "ServiceEntry",
    """\
spec:
  hosts: [api.example.com]
  addresses: [10.1.1.1, 10.2.0.0/16]
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]
  location: MESH_EXTERNAL
  resolution: STATIC
  exportTo: [., other]
  subjectAltNames: [spiffe://cluster.local/ns/demo/sa/api]
  endpoints:
  - {address: 10.9.9.9, ports: {http: 90}, weight: 3, locality: eu/eu-1/a, labels: {v: '1'}, serviceAccount: api}""",
)
WORKLOAD_ENTRY = """\
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm, namespace: demo, labels: {app: api, by: metadata}}
spec:
  address: vm.example.com
  ports: {http: 8080}
  weight: 2
  locality: eu/eu-1
  labels: {by: spec, version: v1}
  serviceAccount: api
"""
PEER_AUTHENTICATION = document(
    "PeerAuthentication",
    """\
spec:
  selector: {matchLabels: {app: api}}
  mtls: {mode: STRICT}
  portLevelMtls: {8080: {mode: DISABLE}, '9090': {mode: PERMISSIVE}}""",
)
SIDECAR = document(
    "Sidecar",
    """\
spec:
  workloadSelector: {labels: {app: api}}
  ingress:
  - port: {number: 80, protocol: HTTP, name: http}
    bind: 0.0.0.0
    captureMode: NONE
    defaultEndpoint: 127.0.0.1:8080
  - {port: {number: 81, protocol: tcp}, defaultEndpoint: unix:///run/a.sock}
  egress:
  - port: {number: 9080, protocol: HTTP, name: out}
    bind: 127.0.0.1
    captureMode: NONE
    hosts: [./*, 'istio-system/*.example.com']
  - hosts: ['*/api.example.com', ~/*]
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}""",
)
SERVICE = """\
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: demo
  annotations: {networking.istio.io/exportTo: "., other"}
spec:
  type: ClusterIP
  clusterIP: 10.0.0.5
  clusterIPs: [10.0.0.5, 'FD00::5']
  selector: {app: web}
  ports:
  - {name: http-web, port: 80, targetPort: web}
  - {name: admin, port: 81, targetPort: 8081, protocol: TCP, appProtocol: kubernetes.io/h2c}
"""
ENDPOINTS = document(
    "Endpoints",
    """\
subsets:
- addresses: [{ip: 10.1.0.1, hostname: a, nodeName: n, targetRef: {kind: Pod}}]
  notReadyAddresses: [{ip: 10.1.0.2}]
  ports: [{name: http-web, port: 8080}, {name: admin, port: 8081, protocol: TCP}]""",
)
ENDPOINT_SLICE = """\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: demo, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http-web, port: 8080, protocol: TCP, appProtocol: http}]
endpoints:
- {addresses: [10.1.0.1], zone: eu-1, conditions: {ready: true, serving: true, terminating: false}, nodeName: n}
- {addresses: [10.1.0.2], conditions: {ready: false}}
- {addresses: [10.1.0.3]}
"""
VIRTUAL_SERVICE = document(
    "VirtualService",
    """\
spec:
  hosts: [reviews, '*.example.com', 10.0.0.1]
  gateways: [mesh, istio-system/gateway]
  exportTo: ['*']
  http:
  - name: first
    match:
    - name: all
      uri: {prefix: /a}
      scheme: {exact: http}
      method: {regex: GET|POST}
      authority: {exact: reviews}
      headers: {end-user: {exact: jason}, x-there: {}}
      withoutHeaders: {x-not: {}}
      queryParams: {q: {regex: '[0-9]+$'}}
      ignoreUriCase: true
      port: 9080
      sourceLabels: {app: web}
      sourceNamespace: demo
      gateways: [mesh]
    route:
    - destination: {host: reviews, subset: v1, port: {number: 9080}}
      weight: 90
      headers: {request: {remove: [x-r]}, response: {add: {x-v: v1}}}
    - destination: {host: reviews, subset: v2}
      weight: 10
    rewrite: {uri: /new, authority: new.example.com}
    timeout: 1m30s
    retries: {attempts: 3, perTryTimeout: 2s, retryOn: '5xx,reset,503', retryRemoteLocalities: true, backoff: 25ms}
    fault:
      delay: {fixedDelay: 5s, percentage: {value: 0.1}}
      abort: {httpStatus: 503, percentage: {value: 50}}
    mirror: {host: shadow}
    mirrorPercentage: {value: 12.5}
    corsPolicy:
      allowOrigins: [{exact: https://a.example.com}]
      allowMethods: [GET]
      allowHeaders: [X-Foo]
      exposeHeaders: ['*']
      maxAge: 24h
      allowCredentials: true
    headers:
      request: {set: {x-a: '%START_TIME%'}, add: {x-b: 100%%}, remove: [x-c]}
      response: {set: {x-d: e}}
  - match: [{uri: {exact: /old}}]
    redirect: {uri: /x, authority: y.example.com, scheme: https, redirectCode: 308, derivePort: FROM_REQUEST_PORT}
  - match: [{uri: {exact: /health}}]
    directResponse: {status: 200, body: {string: fine}}
  - match: [{uri: {prefix: /sub}}]
    delegate: {name: sub, namespace: other}
  - route: [{destination: {host: reviews}}]
    rewrite: {uriRegexRewrite: {match: '^/a/(.*)$', rewrite: '/\\1'}}
    mirrors: [{destination: {host: s}, percentage: {value: 3}}, {destination: {host: t}}]
    fault: {abort: {grpcStatus: unavailable, percent: 5}}
  tls:
  - match:
    - {sniHosts: [a.example.com], port: 443, destinationSubnets: [10.0.0.0/8], sourceLabels: {app: web}}
    route: [{destination: {host: a.example.com}}]
  tcp:
  - match: [{port: 27017, sourceNamespace: demo}]
    route: [{destination: {host: mongo}, weight: 1}]""",
)
DESTINATION_RULE = document(
    "DestinationRule",
    """\
spec:
  host: reviews
  exportTo: [.]
  workloadSelector: {matchLabels: {app: web}}
  trafficPolicy:
    loadBalancer: {simple: LEAST_CONN, warmup: {duration: 30s}}
    connectionPool:
      tcp:
        maxConnections: 100
        connectTimeout: 30ms
        idleTimeout: 1h
        maxConnectionDuration: 2h
        tcpKeepalive: {probes: 3, time: 7200s, interval: 75s}
      http:
        http1MaxPendingRequests: 1
        http2MaxRequests: 2
        maxRequestsPerConnection: 3
        maxRetries: 4
        idleTimeout: 5s
        h2UpgradePolicy: UPGRADE
        useClientProtocol: false
        maxConcurrentStreams: 6
    outlierDetection:
      consecutive5xxErrors: 7
      consecutiveGatewayErrors: 5
      splitExternalLocalOriginErrors: true
      consecutiveLocalOriginFailures: 2
      interval: 5m
      baseEjectionTime: 15m
      maxEjectionPercent: 10
      minHealthPercent: 50
    tls:
      mode: MUTUAL
      clientCertificate: /c.pem
      privateKey: /k.pem
      caCertificates: /ca.pem
      sni: reviews.example.com
      subjectAltNames: [spiffe://a]
    portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: ROUND_ROBIN}}]
  subsets:
  - {name: v1, labels: {version: v1}}
  - name: v2
    trafficPolicy:
      loadBalancer:
        consistentHash: {httpCookie: {name: user, path: /, ttl: 0s}, ringHash: {minimumRingSize: 2048}}
      tls: {mode: SIMPLE, insecureSkipVerify: true}""",
)

WHOLE = {
    "ServiceEntry": SERVICE_ENTRY,
    "WorkloadEntry": WORKLOAD_ENTRY,
    "VirtualService": VIRTUAL_SERVICE,
    "DestinationRule": DESTINATION_RULE,
    "PeerAuthentication": PEER_AUTHENTICATION,
    "Sidecar": SIDECAR,
    "Service": SERVICE,
    "Endpoints": ENDPOINTS,
    "EndpointSlice": ENDPOINT_SLICE,
}
