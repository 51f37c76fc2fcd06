"""One merged scrape: the agent's own metrics, then Envoy's and the application's as they come, under one deadline.

Light to import; aiohttp and prometheus_client come with `load()`. `status` streams it, `supervise` makes it.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from pilot_agent.log import Scope
from pilot_agent.metrics import formats
from pilot_agent.metrics.account import ScrapeAccount, SourceAccount
from pilot_agent.metrics.annotations import AppTarget
from pilot_agent.metrics.merge import Merge
from pilot_agent.metrics.own import AgentFacts, OwnMetrics
from pilot_agent.values import HostPort

if TYPE_CHECKING:
    import aiohttp

_IN_A_QUERY = "".join(character for character in map(chr, range(0x21, 0x7F)) if character not in '"#<>')


class ScrapeLimits(NamedTuple):
    """`body_bytes`: the most that is taken of one source."""

    body_bytes: int = 256 * 1024 * 1024


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
        accounts = [] if envoy is None else [SourceAccount("Envoy", "envoy")]
        accounts += [SourceAccount(f"the application on port {app.port}", "application") for app in apps]
        self.account = ScrapeAccount(sources=accounts)
        self._own = OwnMetrics(facts, self.account)
        self._session: aiohttp.ClientSession | None = None
        self._bad_timeout: str | None = None

    @property
    def content_type(self) -> str:
        return formats.CONTENT_TYPE

    def load(self) -> None:
        """The slow imports, about 0.4 s; for a thread."""
        import pilot_agent.metrics.source  # noqa: F401

        self._own.load()

    async def stream(self, headers: Mapping[str, str], query: str) -> AsyncGenerator[bytes, None]:
        """The whole answer in blocks. `headers` are the scraper's, `query` its raw query string, for Envoy alone.

        Closing the generator ends the work on every source; nothing a source does ends the generator early.
        """
        from pilot_agent.metrics.source import Request, Source, open_session

        if self._session is None:
            self._session = open_session()
        self.account.scrapes += 1
        request = Request(self._forwarded(headers), self._deadline(headers), self._limits.body_bytes)
        merge = Merge(len(self._urls))
        tasks = [
            asyncio.create_task(
                Source(account, self._log).read(self._session, self._with_query(url, query), request, merge)
            )
            for url, account in zip(self._urls, self.account.sources, strict=True)
        ]
        try:
            await asyncio.sleep(0)  # the requests leave before our own part is rendered
            if own := self._render():
                yield own
            async for block in merge.blocks():
                yield block
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _render(self) -> bytes:
        try:
            return self._own.render()
        except Exception as error:  # noqa: BLE001  (the other sources are worth having without ours)
            self.account.agent_failures += 1
            self._log.error(f"the agent's own metrics are left out: {error!r}")
            return b""

    def _with_query(self, url: str, query: str) -> str:
        if url is not self._envoy_url or not query:
            return url
        return f"{url}?{quote(query, safe=_IN_A_QUERY, errors='surrogateescape')}"

    def _forwarded(self, headers: Mapping[str, str]) -> dict[str, str]:
        forwarded = {name: headers[name] for name in ("User-Agent", formats.TIMEOUT_HEADER) if headers.get(name)}
        return forwarded | {"Accept": formats.ACCEPT}

    def _deadline(self, headers: Mapping[str, str]) -> float:
        text = headers.get(formats.TIMEOUT_HEADER)
        seconds = formats.parse_timeout(text) if text else formats.DEFAULT_TIMEOUT_SECONDS
        if seconds is None:
            if text != self._bad_timeout:
                self._log.warn(f"{formats.TIMEOUT_HEADER}: {text!r} is not a number of seconds; 10 s it is")
            self._bad_timeout, seconds = text, formats.DEFAULT_TIMEOUT_SECONDS
        return asyncio.get_running_loop().time() + formats.budget(seconds)
