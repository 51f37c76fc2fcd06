"""One request followed from pod to pod: rules that counted it, both Envoys' log lines, and what the application saw.

All of it is measured: counters are read before and after, log lines belong together by their request id. Nothing is
told here; `hops` does.
"""

import re
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from pilot_agent.demo.access_log import AccessLogLine
from pilot_agent.demo.http_request import Answer
from pilot_agent.demo.pod import Pod
from pilot_agent.errors import DemoError
from pilot_agent.interception.counters import CountedChain, moved
from pilot_agent.interception.parse import Unknown, parse_rule
from pilot_agent.interception.purposes import purposes

_MASKS = re.compile(r" --(?:nfmask|ctmask) 0xffffffff|/0xffffffff|/32\b")


class Moved(NamedTuple):
    """A rule that counted `packets`, and what it is for ("" where that is plain)."""

    table: str
    chain: str
    number: int
    rule: str
    packets: int
    purpose: str

    @property
    def target(self) -> str:
        return self.rule.rpartition("-j ")[2].split()[0]


class Passage(NamedTuple):
    """A request that went from `client` to `server`. Movements are empty where nothing captures.

    `seen` is the application's own note: source, destination, headers.
    """

    answer: Answer
    client_moved: tuple[Moved, ...]
    server_moved: tuple[Moved, ...]
    client_line: AccessLogLine
    server_line: AccessLogLine
    seen: dict[str, Any]

    @property
    def forwarded_certificate(self) -> dict[str, str]:
        """X-Forwarded-Client-Cert by its keys: By, Hash, Subject, URI."""
        return forwarded_certificate(self.seen)


def follow(client: Pod, server: Pod, ask: Callable[[], Answer]) -> Passage:
    """Make one request and gather what it left. Raises DemoError when it was not answered, or left no trace."""
    known = len(client.access_log())
    with _still(client, server):
        before = _counters(client, server)
        answer = ask()
        after = _counters(client, server)
    if answer.status != 200:
        raise DemoError(f"the request got {answer.status or 'no answer'}: {answer.body.strip()}")
    client_moved, server_moved = (_moved(*each) for each in zip(before, after, strict=True))
    client.until("a line in its access log", lambda: len(client.access_log()) > known, within=5)
    line = client.access_log()[-1]
    server.until("the same in its access log", lambda: _of(server.access_log(), line) is not None, within=5)
    other = _of(server.access_log(), line)
    seen = [each for each in server.application_log() if header(each, "x-request-id") == line.request_id]
    if other is None or not seen:
        raise DemoError(f"the application has not seen request {line.request_id}")
    return Passage(answer, client_moved, server_moved, line, other, seen[-1])


@contextmanager
def _still(*pods: Pod) -> Iterator[None]:
    """The agents hold still: their own questions to Envoy would move counters too."""
    with ExitStack() as stack:
        for pod in pods:
            if pod.is_isolated:
                pod.agent.signal(signal.SIGSTOP)
                stack.callback(pod.agent.signal, signal.SIGCONT)
        yield


Reading = tuple[CountedChain, ...]


def _counters(*pods: Pod) -> list[Reading]:
    return [pod.counters() if pod.is_isolated else () for pod in pods]


def _moved(before: Reading, after: Reading) -> tuple[Moved, ...]:
    words = {
        (chain.family, chain.table, chain.name, rule.number): purpose
        for chain in after
        for rule, purpose in zip(chain.rules, _purposes(chain), strict=True)
    }
    return tuple(
        Moved(
            each.table,
            each.chain,
            each.number,
            _MASKS.sub("", each.text.removeprefix(f"-A {each.chain} ")),
            each.packets,
            words.get((each.family, each.table, each.chain, each.number), ""),
        )
        for each in moved(before, after)
    )


def _purposes(chain: CountedChain) -> list[str]:
    read = [parse_rule(chain.table, rule.text) for rule in chain.rules]
    return purposes([None if isinstance(each, Unknown) else each for each in read])


def _of(lines: Sequence[AccessLogLine], line: AccessLogLine) -> AccessLogLine | None:
    return next((each for each in reversed(lines) if each.request_id == line.request_id), None)


def header(seen: dict[str, Any], name: str) -> str:
    """Of a request as the application saw it; "" where there is none."""
    return next((str(value) for key, value in seen["headers"].items() if key.lower() == name), "")


def forwarded_certificate(seen: dict[str, Any]) -> dict[str, str]:
    """X-Forwarded-Client-Cert of a request as the application saw it, by its keys; empty without mutual TLS."""
    parts = (part.partition("=") for part in header(seen, "x-forwarded-client-cert").split(";"))
    return {key: value.strip('"') for key, _, value in parts if key}
