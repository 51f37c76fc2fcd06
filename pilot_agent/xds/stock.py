"""Stock Envoys under an unmodified istiod: what only Istio's build of Envoy can load is taken out of what is pushed.

Owns the table of Istio's extensions, and tells at C's speed whether a response may have any of them: only then `sieve`
is imported, which knows where they can stand. Everything else passes bit for bit.

What guards traffic is not in the table, and neither is what nobody here knows: Envoy refuses those by itself, and keeps
its last configuration. An Envoy that serves without a check it was told to make would be worse than one that refuses.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from pilot_agent.log import Level, Scope

PEER_EXCHANGE = "istio-peer-exchange"
"""The ALPN by which two ends agree to put metadata in front of a TCP stream."""


class Part(NamedTuple):
    """Something of Istio's build. `messages` are names of config messages, or packages with a dot at the end.

    `extensions` are the names under which a build that has it lists it: without any of these it is missing.
    `names` are those of filters that don't say what message configures them. `loss` is what there is not without it.
    `facts` are what it finds out for policies: a resource that still asks for one without it is left as it came.
    """

    title: str
    messages: tuple[str, ...]
    extensions: tuple[str, ...]
    names: tuple[str, ...]
    loss: str
    level: Level = Level.info
    facts: tuple[bytes, ...] = ()


_HTTP_METADATA, _TELEMETRY = "envoy.filters.http.peer_metadata", "envoy.filters.http.istio_stats"

TCP_METADATA_EXCHANGE = Part(
    # istiod's pilot/pkg/xds/filters (TCPListenerMx, TCPClusterMx); istio/proxy's network/metadata_exchange
    "TCP metadata exchange",
    ("envoy.tcp.metadataexchange.config.",),
    ("envoy.filters.network.metadata_exchange", "envoy.filters.network.upstream.metadata_exchange"),
    (
        "istio.metadata_exchange",
        "envoy.filters.network.metadata_exchange",
        "envoy.filters.network.upstream.metadata_exchange",
    ),
    "TCP peers don't learn of each other",
)

PARTS = (
    TCP_METADATA_EXCHANGE,
    Part(
        # pilot/pkg/xds/filters: sidecars (istio.metadata_exchange) and waypoints; istio/proxy's http/peer_metadata
        "HTTP peer metadata",
        ("io.istio.http.peer_metadata.",),
        (_HTTP_METADATA,),
        (
            "istio.metadata_exchange",
            "istio.peer_metadata",
            "waypoint_downstream_peer_metadata",
            "waypoint_upstream_peer_metadata",
            _HTTP_METADATA,
        ),
        "HTTP peers don't learn of each other",
    ),
    Part(
        # istio/proxy's network/peer_metadata: waypoints that tunnel; the UpstreamConfig is in clusters
        "peer metadata of tunnels",
        ("envoy.extensions.network_filters.peer_metadata.",),
        ("envoy.filters.network.peer_metadata", "envoy.filters.network.upstream.peer_metadata"),
        ("peer_metadata", "envoy.filters.network.peer_metadata", "envoy.filters.network.upstream.peer_metadata"),
        "peers behind a tunnel don't learn of each other",
    ),
    Part(
        # istiod's pilot/pkg/model/telemetry.go; istio/proxy's http/istio_stats, one message for HTTP and TCP
        "telemetry",
        ("stats.PluginConfig",),
        (_TELEMETRY, "envoy.filters.network.istio_stats"),
        ("istio.stats", "istio_stats", _TELEMETRY, "envoy.filters.network.istio_stats"),
        "there are no istio_* metrics",
    ),
    Part(
        # pilot/pkg/xds/filters (Alpn); istio/proxy's http/alpn
        "ALPN override",
        ("istio.envoy.config.filter.http.alpn.",),
        ("istio.alpn", "envoy.filters.http.alpn"),
        ("istio.alpn",),
        "a peer that finds out the protocol by itself takes HTTP from here for TCP",
        Level.warn,
    ),
    Part(
        # istiod up to 1.21 or so; istio/proxy's http/authn
        "HTTP authentication",
        ("istio.envoy.config.filter.http.authn.",),
        ("istio_authn",),
        ("istio_authn",),
        "nothing is known of request and peer principals",
        Level.warn,
        (b"istio_authn",),
    ),
    Part(
        # istio/proxy's network/istio_authn and network/istio_tlv_authn
        "TCP authentication",
        ("io.istio.network.authn.", "io.istio.network.tlv_authn."),
        ("io.istio.network.authn", "io.istio.network.tlv_authn"),
        (),
        "nothing is known of peer principals",
        Level.warn,
        (b"io.istio.peer_principal", b"io.istio.local_principal"),
    ),
    Part(
        # istio/proxy's network/forward_downstream_sni
        "SNI forwarding",
        ("io.istio.tcp.forward_downstream_sni.",),
        ("forward_downstream_sni", "envoy.filters.network.forward_downstream_sni"),
        ("forward_downstream_sni", "envoy.filters.network.forward_downstream_sni"),
        "an upstream isn't sent the SNI that came in",
        Level.warn,
    ),
    Part(
        # EnvoyFilters of older multi-cluster guides; istio/proxy's network/tcp_cluster_rewrite
        "TCP cluster rewriting",
        ("istio.envoy.config.filter.network.tcp_cluster_rewrite.",),
        ("envoy.filters.network.tcp_cluster_rewrite",),
        ("istio.tcp_cluster_rewrite", "envoy.filters.network.tcp_cluster_rewrite"),
        "clusters keep the names that clients gave them",
        Level.warn,
    ),
    Part(
        # istio/proxy's http/misdirected_request: gateways with several HTTPS listeners on a port
        "misdirected request detection",
        ("istio.envoy.config.filter.http.misdirected_request.",),
        ("istio.misdirected_request",),
        ("istio.misdirected_request",),
        "a request for a host of another HTTPS listener of the port is answered",
        Level.warn,
    ),
)
"""The first that fits counts."""

HINTS = (
    b"istio.",
    b"istio_",
    b"istio-",
    b"metadata",
    b"PluginConfig",
    b"misdirected_request",
    b"tcp_cluster_rewrite",
    b"forward_downstream_sni",
)
"""One of these is in every marker. Each search takes 4 ms for 20 MB, and there are twice as many markers."""

KINDS = tuple(
    f"type.googleapis.com/envoy.config.{each}"
    for each in (
        "listener.v3.Listener",
        "route.v3.RouteConfiguration",
        "cluster.v3.Cluster",
        "core.v3.TypedExtensionConfig",
    )
)
"""Types of resources that can have any of it inside."""


class StockFilter:
    """`missing` says whether the binary lacks the extension of a name (`envoy.build.Build.extensions` lists them).

    `left_out` counts by `Part.title`, and under PEER_EXCHANGE where that was taken out of an ALPN list.
    """

    def __init__(self, missing: Callable[[str], bool], left_out: Counter[str], log: Scope) -> None:
        self._log, self._left_out = log, left_out
        self._parts = tuple(part for part in PARTS if all(map(missing, part.extensions)))
        self._markers = _markers(self._parts)
        self._said: set[str] = set()

    def is_suspect(self, type_url: str, encoded: bytes) -> bool:
        """Whether any of it may be inside; most responses are never parsed."""
        if type_url not in KINDS or not self._markers or not any(text in encoded for text in HINTS):
            return False
        return any(marker in encoded for marker in self._markers)

    def response(self, type_url: str, encoded: bytes, *, is_delta: bool) -> bytes:
        """A response without what can't be loaded; the same object when it has nothing of that."""
        if not self.is_suspect(type_url, encoded):
            return encoded
        from pilot_agent.xds.sieve import sifted_response

        return sifted_response(encoded, self.resource, is_delta=is_delta)

    def resource(self, type_url: str, encoded: bytes) -> bytes:
        """The `value` of a resource's Any, likewise. A malformed one is left as it is: Envoy judges it."""
        if not self.is_suspect(type_url, encoded):
            return encoded
        from pilot_agent.xds.sieve import sifted

        result = sifted(self._parts, type_url, encoded)
        if result is None:
            return encoded
        for part, cause in result.found:
            if any(fact in result.encoded for fact in part.facts):
                self._say_kept(part, result.where, cause)
                return encoded
        for part, cause in result.found:
            self._count(part, result.where, cause)
        return result.encoded

    def _say_kept(self, part: Part, where: str, cause: str) -> None:
        self._say(
            f"kept {part.title}",
            Level.error,
            f"{where} stays as istiod sent it, and Envoy will refuse it: a policy in it asks for what {cause} finds "
            "out, this Envoy is not Istio's build and doesn't have it, and without it a DENY would let everybody "
            "through",
        )

    def _count(self, part: Part, where: str, cause: str) -> None:
        key = PEER_EXCHANGE if cause == PEER_EXCHANGE else part.title
        self._left_out[key] += 1
        self._say(
            key,
            part.level,
            f"{where}: {cause} is left out, here and elsewhere: this Envoy is not Istio's build and doesn't "
            f"have it, so {part.loss} (--stockEnvoy=false keeps it)",
        )

    def _say(self, what: str, level: Level, text: str) -> None:
        """Once for each thing, however often it is pushed."""
        if what not in self._said:
            self._said.add(what)
            self._log.at(level, text)


def _markers(parts: Iterable[Part]) -> tuple[bytes, ...]:
    """The fewest texts of which one is in every resource that has one of these: a search takes 0.2 ms per MB."""
    # With the host: a bare `/istio.` is also in a tag `istio.authorization...` of 47 bytes, a length written as "/".
    texts = {f".googleapis.com/{message}" for part in parts for message in part.messages}
    texts |= {_telling(name) for part in parts for name in part.names}
    if TCP_METADATA_EXCHANGE in parts:
        texts.add(PEER_EXCHANGE)
    fewest: list[str] = []
    for text in sorted(texts, key=lambda text: (len(text), text)):
        if not any(shorter in text for shorter in fewest):
            fewest.append(text)
    return tuple(text.encode() for text in fewest)


def _telling(name: str) -> str:
    """The end of a name, where that is no everyday word: it is in the other names of the same thing too."""
    last = name.rpartition(".")[2]
    return last if "_" in last else name
