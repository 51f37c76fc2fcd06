"""What the xDS proxy has counted and seen last: for metrics, `/debug/xds` and readiness. Data only."""

from collections import Counter, deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class TypeState:
    """One type on one stream. `nack` has Envoy's words, None since its last ACK."""

    version: str = ""
    nonce: str = ""
    resources: int = 0
    requests: int = 0
    responses: int = 0
    bytes: int = 0
    answered_nonce: str = ""
    nack: str | None = None


@dataclass(slots=True)
class StreamState:
    """A stream of Envoy and the one to istiod behind it. Times are wall-clock seconds."""

    process: int
    is_delta: bool
    began: float
    istiod: str = ""
    is_connected: bool = False
    types: dict[str, TypeState] = field(default_factory=dict)

    def of(self, type_url: str) -> TypeState:
        return self.types.setdefault(type_url, TypeState())


@dataclass(slots=True)
class XdsAccount:
    """Counters only grow. `problem`: why istiod could not be reached, does not answer or ended the last stream; None
    once it has answered again."""

    requests: int = 0
    responses: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    """Of what a stock Envoy can't load, by what it is."""
    refusals: Counter[str] = field(default_factory=Counter)
    """How often Envoy refused what it was sent of a type."""
    refused: dict[str, str] = field(default_factory=dict)
    """What Envoy said of the type when it refused the last response, until it takes one."""
    connection_failures: int = 0
    istiod_ends: Counter[str] = field(default_factory=Counter)
    envoy_ends: Counter[str] = field(default_factory=Counter)
    problem: str | None = None
    last_contact: float | None = None
    streams: list[StreamState] = field(default_factory=list)
    past: deque[str] = field(default_factory=lambda: deque(maxlen=5))
    """How the last streams ended."""
