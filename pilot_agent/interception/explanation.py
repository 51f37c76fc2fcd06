"""A packet, and what became of it: every rule that matched, which one decided, where it lands. As text and as JSON.

Only what is said; `explain` finds it out.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

State = Literal["NEW", "ESTABLISHED", "INVALID"]
Landing = Literal["outbound", "inbound", "dns", "redirected", "direct", "established", "dropped", "unknown"]

_MEANINGS: dict[Landing, str] = {
    "outbound": "reaches Envoy as outbound, at port {port}",
    "inbound": "reaches Envoy as inbound, at port {port}",
    "dns": "reaches the agent's DNS proxy, at port {port}",
    "redirected": "is redirected to port {port} by a rule that is not Istio's",
    "direct": "goes where it was sent: no rule brings it to Envoy",
    "established": "goes the way its connection went with the first packet",
    "dropped": "is dropped",
    "unknown": "can't be told: a rule stands in the way that is not understood",
}


@dataclass(frozen=True, slots=True)
class Packet:
    """`is_sent`: by a process of the pod, through `interface`, which is lo for the pod's own addresses; else it arrives
    there. `uid` and `gid` of the sender's socket; None when it arrives, or when the kernel itself sends.

    `is_forwarded`: arrives, and is for another machine: that of a virtual machine behind `interface`.
    """

    is_sent: bool
    protocol: Literal["tcp", "udp"]
    source: str
    destination: str
    port: int
    source_port: int
    interface: str
    uid: int | None = None
    gid: int | None = None
    state: State = "NEW"
    mark: int = 0
    connection_mark: int = 0
    is_forwarded: bool = False

    @property
    def family(self) -> Literal[4, 6]:
        return 6 if ":" in self.destination else 4

    def __str__(self) -> str:
        ends = f"{_end(self.source, self.source_port)} to {_end(self.destination, self.port)}"
        owner = "" if self.uid is None and self.gid is None else f" by uid {self.uid}, gid {self.gid}"
        way = f"sent{owner} through" if self.is_sent else "arriving on"
        marks = [f"mark {self.mark}"] * bool(self.mark) + [f"connection mark {self.connection_mark}"] * bool(
            self.connection_mark
        )
        return ", ".join([f"{self.protocol} from {ends}", f"{way} {self.interface}", self.state, *marks])


def _end(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class Step(NamedTuple):
    """A rule that matched. `number`: its place in the chain, from 1; 0 for the chain's policy. `does`: for a person."""

    table: str
    chain: str
    number: int
    rule: str
    action: str
    does: str

    def __str__(self) -> str:
        where = f"rule {self.number}" if self.number else "the policy"
        return f"{where} of {self.table} {self.chain}: {self.rule}"


class Passage(NamedTuple):
    """Through one table at one of the kernel's hooks. `note`: why the table was not asked, where it was not."""

    hook: str
    table: str
    steps: tuple[Step, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """`port`: of this machine, where the packet lands there instead of at its destination.

    `decided`: None where no rule is about such a packet, so that it just goes on.
    """

    packet: Packet
    path: tuple[Passage, ...]
    lands: Landing
    port: int | None
    decided: Step | None

    @property
    def reaches_envoy(self) -> bool:
        return self.lands in ("outbound", "inbound")

    @property
    def verdict(self) -> str:
        return _MEANINGS[self.lands].format(port=self.port)

    def as_json(self) -> dict[str, Any]:
        """Ready for json.dumps."""
        return {
            "packet": asdict(self.packet),
            "path": [
                {**passage._asdict(), "steps": [step._asdict() for step in passage.steps]} for passage in self.path
            ],
            "lands": self.lands,
            "port": self.port,
            "reachesEnvoy": self.reaches_envoy,
            "verdict": self.verdict,
            "decided": self.decided._asdict() if self.decided else None,
        }

    def as_text(self) -> str:
        lines = [str(self.packet)]
        width = max((len(step.does) for passage in self.path for step in passage.steps), default=0)
        for passage in self.path:
            told = passage.note or ("" if passage.steps else "no rule matches")
            lines.append(f"{passage.hook} {passage.table}" + (f": {told}" if told else ""))
            for step in passage.steps:
                mark = "*" if step is self.decided else " "
                lines.append(f" {mark} {step.does:{width}}  {step.rule}")
        lines.append(f"It {self.verdict}.")
        if self.decided:
            lines.append(f"Decided by {self.decided}")
        elif self.lands == "direct":
            lines.append("No rule decided: none is about such a packet.")
        return "\n".join(lines)
