"""One merged scrape: the agent's own metrics, then Envoy's and the application's as they come, in one format and
under one deadline.

Light to import; aiohttp and prometheus_client come with `load()`. `status` streams it, `supervise` makes it.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from pilot_agent.log import Scope
from pilot_agent.metrics import formats
from pilot_agent.metrics.account import ScrapeAccount, SourceAccount
from pilot_agent.metrics.annotations import AppTarget
from pilot_agent.metrics.formats import TEXT, Format, negotiate
from pilot_agent.metrics.merge import Merge
from pilot_agent.metrics.own import AgentFacts, OwnMetrics
from pilot_agent.values import HostPort

if TYPE_CHECKING:
    import aiohttp

    from pilot_agent.metrics.joining import Learned, Origin

_IN_A_QUERY = "".join(character for character in map(chr, range(0x21, 0x7F)) if character not in '"#<>')


class ScrapeLimits(NamedTuple):
    """`body_bytes`: the most that is taken of one source; `total_bytes`: of all; `in_flight`: scrapes at once."""

    body_bytes: int = 256 * 1024 * 1024
    total_bytes: int = 1024 * 1024 * 1024
    in_flight: int = 64


class Scraper:
    def __init__(
        self,
        facts: Callable[[], AgentFacts],
        envoy: HostPort | None,
        apps: Sequence[AppTarget],
        log: Scope,
        limits: ScrapeLimits | None = None,
    ) -> None:
        """`envoy`: where Envoy's own metrics are, a loopback literal with ENVOY_PROMETHEUS_PORT; None leaves it out."""
        self._log, self._limits = log, limits or ScrapeLimits()
        self._envoy_url = f"http://{envoy}/stats/prometheus"
        self._urls = [] if envoy is None else [self._envoy_url]
        self._urls += [quote(app.url, safe=_IN_A_QUERY) for app in apps]
        self.account = ScrapeAccount(sources=_accounts(envoy, apps))
        self._agent = SourceAccount("the agent", "agent", label="agent")
        self._own = OwnMetrics(facts, self.account, self._agent)
        self._learned: dict[Format, Learned] = {}
        self._session: aiohttp.ClientSession | None = None
        self._bad_timeout: str | None = None

    @property
    def in_flight_limit(self) -> int:
        return self._limits.in_flight

    def content_type(self, accept: str) -> str:
        """What `stream` answers a scraper with this Accept header, until another source turns out to give text only."""
        return self._format(accept).content_type

    def refuse(self) -> None:
        """Count a scrape that was refused, because too many were running."""
        self.account.refused += 1

    def load(self) -> None:
        """The slow imports, about 0.4 s; for a thread."""
        import pilot_agent.metrics.source  # noqa: F401

        self._own.load()

    async def stream(self, headers: Mapping[str, str], query: str) -> AsyncGenerator[bytes, None]:
        """The whole answer in blocks. `headers` are the scraper's, `query` its raw query string, for Envoy alone.

        Closing the generator ends the work on every source; nothing a source does ends the generator early.
        """
        format_ = self._format(headers.get("Accept", ""))
        self.account.scrapes += 1
        self.account.in_flight += 1
        merge: Merge[Origin] = Merge(len(self._urls))
        tasks: list[asyncio.Task[None]] = []
        try:
            tasks += self._start(headers, query, format_, merge)
            await asyncio.sleep(0)  # the requests leave before our own part is rendered
            async with aclosing(self._joined(format_, merge)) as blocks:
                async for block in blocks:
                    if block:
                        yield block
        finally:
            self.account.in_flight -= 1
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _start(
        self, headers: Mapping[str, str], query: str, format_: Format, merge: "Merge[Origin]"
    ) -> list[asyncio.Task[None]]:
        from pilot_agent.metrics.source import Allowance, Request, Source, open_session

        if self._session is None:
            self._session = open_session()
        deadline, allowance, limits = self._deadline(headers), Allowance(self._limits.total_bytes), self._limits
        tasks = []
        for url, account in zip(self._urls, self.account.sources, strict=True):
            accept = (TEXT if account.kind == "envoy" else format_).accept
            request = Request(_forwarded(headers, accept), format_, deadline, limits.body_bytes, allowance)
            reading = Source(account, self._log).read(self._session, self._with_query(url, query), request, merge)
            tasks.append(asyncio.create_task(reading))
        return tasks

    async def _joined(self, format_: Format, merge: "Merge[Origin]") -> AsyncGenerator[bytes, None]:
        """Our own part, the sources' as they come, what they did in this scrape, and the families they share."""
        from pilot_agent.metrics.joining import Joiner, Origin

        is_open = format_.is_openmetrics
        joiner = Joiner(self._what_is_learned(format_), self._log, is_openmetrics=is_open)
        own = Origin(self._agent, is_open, is_trusted=True)
        yield joiner.join(own, self._render(self._own.render_facts, is_open))
        async for origin, block in merge.blocks():
            yield joiner.join(origin, block)
        joined = joiner.rest()
        # After the others, so that it tells of this scrape.
        yield joiner.join(own, self._render(self._own.render_scrapes, is_open)) + joined
        if is_open:
            yield b"# EOF\n"

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _format(self, accept: str) -> Format:
        return negotiate(accept, has_text_only_source=any(source.is_text_only for source in self.account.sources))

    def _what_is_learned(self, format_: Format) -> "Learned":
        """What describes our process describes the application's under the same names: it is shared from the start."""
        from pilot_agent.metrics.exposition import headers_of
        from pilot_agent.metrics.joining import Learned

        learned = self._learned.setdefault(format_, Learned())
        if not learned.shared:
            text = self._render(self._own.render_process, format_.is_openmetrics)
            learned.shared.update(name for name, _ in headers_of(text))
        return learned

    def _render(self, render: Callable[..., bytes], is_openmetrics: bool) -> bytes:
        try:
            return render(is_openmetrics=is_openmetrics)
        except Exception as error:  # noqa: BLE001  (the other sources are worth having without ours)
            self.account.agent_failures += 1
            self._log.error(f"the agent's own metrics are left out: {error!r}")
            return b""

    def _with_query(self, url: str, query: str) -> str:
        if url is not self._envoy_url or not query:
            return url
        return f"{url}?{quote(query, safe=_IN_A_QUERY, errors='surrogateescape')}"

    def _deadline(self, headers: Mapping[str, str]) -> float:
        text = headers.get(formats.TIMEOUT_HEADER)
        seconds = formats.parse_timeout(text) if text else formats.DEFAULT_TIMEOUT_SECONDS
        if seconds is None:
            if text != self._bad_timeout:
                self._log.warn(f"{formats.TIMEOUT_HEADER}: {text!r} is not a number of seconds; 10 s it is")
            self._bad_timeout, seconds = text, formats.DEFAULT_TIMEOUT_SECONDS
        return asyncio.get_running_loop().time() + formats.budget(seconds)


def _accounts(envoy: HostPort | None, apps: Sequence[AppTarget]) -> list[SourceAccount]:
    accounts = [] if envoy is None else [SourceAccount("Envoy", "envoy", label="envoy", is_text_only=True)]
    labels: dict[str, int] = {}
    for app in apps:
        label = f"application:{app.port}{app.path.partition('?')[0]}"  # a query may hold a token
        labels[label] = number = labels.get(label, 0) + 1
        label = label if number == 1 else f"{label}#{number}"
        accounts.append(SourceAccount(f"the application on port {app.port}", "application", label=label))
    return accounts


def _forwarded(headers: Mapping[str, str], accept: str) -> dict[str, str]:
    forwarded = {name: headers[name] for name in ("User-Agent", formats.TIMEOUT_HEADER) if headers.get(name)}
    return forwarded | {"Accept": accept}
