import asyncio
import re
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from pilot_agent.metrics.annotations import AppTarget
from pilot_agent.metrics.own import AgentFacts
from pilot_agent.metrics.scrape import ScrapeLimits, Scraper
from pilot_agent.values import HostPort
from tests.support.eventually_async import eventually_async
from tests.support.ports import free_port
from tests.support.recorded_log import RecordedLog
from tests.unit.metrics.application import TEXT_HEAD, Application, Exchange, application, text

ENVOY = text(b"# TYPE envoy counter\nenvoy 1\n")
APP = text(b"# TYPE app counter\napp 1\n")


@dataclass
class Scraped:
    scraper: Scraper
    log: RecordedLog

    async def body(self, headers: Mapping[str, str] | None = None, query: str = "") -> str:
        async with aclosing(self.scraper.stream(headers or {}, query)) as blocks:
            return b"".join([block async for block in blocks]).decode()


@asynccontextmanager
async def scraped(
    envoy: Application | int | None,
    *apps: Application | int,
    path: str = "/metrics",
    limits: ScrapeLimits | None = None,
) -> AsyncIterator[Scraped]:
    def port(of: Application | int) -> int:
        return of if isinstance(of, int) else of.port

    log = RecordedLog()
    scraper = Scraper(
        AgentFacts,
        None if envoy is None else HostPort("127.0.0.1", port(envoy)),
        [AppTarget(port(app), path) for app in apps],
        log.scope,
        limits,
    )
    scraper.load()
    try:
        yield Scraped(scraper, log)
    finally:
        await scraper.close()


def foreign(body: str) -> str:
    """What is not the agent's own."""
    return "".join(re.findall(r"^(?!(?:# \w+ )?(?:istio_agent|process|python)_).*\n", body, re.MULTILINE))


def test_agent_envoy_and_application_in_one_answer() -> None:
    async def main() -> None:
        async with application(ENVOY) as envoy, application(APP) as app, scraped(envoy, app) as at:
            body = await at.body({"User-Agent": "Prometheus/3.5", "Authorization": "Bearer x"}, "filter=a%20b&usedonly")
            assert body.startswith("# HELP istio_agent_ready")
            assert "istio_agent_scrapes_total 1.0\n" in body
            assert foreign(body).splitlines() in (
                ["# TYPE envoy counter", "envoy 1", "# TYPE app counter", "app 1"],
                ["# TYPE app counter", "app 1", "# TYPE envoy counter", "envoy 1"],
            )
            assert envoy.requests[0].startswith(b"GET /stats/prometheus?filter=a%20b&usedonly HTTP/1.1\r\n")
            assert app.requests[0].startswith(b"GET /metrics HTTP/1.1\r\n")
            assert f"Host: localhost:{app.port}\r\n".encode() in app.requests[0]
            assert b"Accept: text/plain;version=0.0.4\r\n" in envoy.requests[0]
            assert b"Accept: text/plain;version=0.0.4,application/vnd.google.protobuf" in app.requests[0]
            for request in (*envoy.requests, *app.requests):
                assert b"User-Agent: Prometheus/3.5\r\n" in request
                assert b"Authorization" not in request
            assert at.log.lines == []

    asyncio.run(main())


def test_without_sources_the_agents_own_part_is_the_answer() -> None:
    async def main() -> None:
        async with scraped(None) as at:
            assert (await at.body()).endswith("\n")

    asyncio.run(main())


def test_the_scrapers_timeout_is_passed_on() -> None:
    async def main() -> None:
        async with application(APP) as app, scraped(None, app) as at:
            await at.body({"X-Prometheus-Scrape-Timeout-Seconds": "7.5"})
            assert b"X-Prometheus-Scrape-Timeout-Seconds: 7.5\r\n" in app.requests[0]

    asyncio.run(main())


def test_a_timeout_that_is_no_number_is_warned_about_once() -> None:
    async def main() -> None:
        async with application(APP) as app, scraped(None, app) as at:
            for _ in range(2):
                assert "\napp 1\n" in await at.body({"X-Prometheus-Scrape-Timeout-Seconds": "soon"})
            assert len(at.log.lines) == 1 and "'soon'" in at.log.lines[0]

    asyncio.run(main())


def test_a_missing_newline_is_added_between_sources() -> None:
    async def main() -> None:
        bare = text(b"# TYPE bare counter\nbare 1")
        async with application(bare) as one, application(bare) as two, scraped(None, one, two) as at:
            assert (await at.body()).count("bare 1\n") == 2

    asyncio.run(main())


async def answer_404(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")


async def answer_protobuf(exchange: Exchange) -> None:
    kind = b"application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: " + kind + b"\r\n\r\n\x02\x0a\x00")


async def answer_html(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>metrics")


async def answer_one_counter_in_protobuf(exchange: Exchange) -> None:
    kind = b"application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
    message = b"\x0a\x0ahits_total\x18\x00\x22\x0b\x1a\x09\x09" + struct.pack("<d", 3.0)
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: " + kind + b"\r\n\r\n" + bytes([len(message)]) + message)


def test_an_application_that_speaks_only_protobuf_is_merged() -> None:
    async def main() -> None:
        only_protobuf = application(answer_one_counter_in_protobuf)
        async with application(ENVOY) as envoy, only_protobuf as app, scraped(envoy, app) as at:
            body = await at.body()
            assert "# TYPE hits_total counter\nhits_total 3.0\n" in body
            assert at.log.lines == []

    asyncio.run(main())


async def answer_garbage(exchange: Exchange) -> None:
    await exchange.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")


async def hang_up(exchange: Exchange) -> None:
    exchange.reset()


async def redirect_for_ever(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 302 Found\r\nLocation: /metrics\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (answer_404, "status 404"),
        (answer_protobuf, "a protobuf family without a name"),
        (answer_html, "content type 'text/html'; it is neither text, OpenMetrics nor protobuf"),
        (answer_garbage, "Bad"),
        (hang_up, "the connection broke"),
        (redirect_for_ever, "too many redirects"),
    ],
)
def test_a_broken_application_costs_only_itself_and_is_logged_once(script: object, problem: str) -> None:
    async def main() -> None:
        async with application(ENVOY) as envoy, application(script) as app, scraped(envoy, app) as at:  # type: ignore[arg-type]
            for _ in range(3):
                body = await at.body()
                assert foreign(body).endswith("envoy 1\n")
            assert len(at.log.lines) == 1
            assert at.log.lines[0].startswith(f"warn metrics of the application on port {app.port} are left out:")
            assert problem in at.log.lines[0]
            account = at.scraper.account.sources[1]
            assert account.failures == 3
            assert problem in str(account.last_error)
            assert 'istio_agent_scrape_failures_total{type="application"} 4.0\n' in await at.body()
            assert at.scraper.account.failures("envoy") == 0

    asyncio.run(main())


def test_a_dead_application_and_a_dead_envoy() -> None:
    async def main() -> None:
        async with scraped(free_port(), free_port()) as at:
            body = await at.body()
            assert foreign(body) == ""
            assert [source.last_error for source in at.scraper.account.sources] == [
                "can't connect: Connection refused",
                "can't connect: Connection refused",
            ]

    asyncio.run(main())


def test_a_source_that_recovers_is_logged() -> None:
    async def main() -> None:
        answers = [answer_404, APP]

        async def script(exchange: Exchange) -> None:
            await answers.pop(0)(exchange)

        async with application(script) as app, scraped(None, app) as at:
            await at.body()
            assert "\napp 1\n" in await at.body()
            assert [line.split()[0] for line in at.log.lines] == ["warn", "info"]
            assert at.scraper.account.sources[0].problem is None
            assert at.scraper.account.sources[0].last_error == "status 404"

    asyncio.run(main())


def test_a_body_that_breaks_off_leaves_whole_lines() -> None:
    async def main() -> None:
        async def script(exchange: Exchange) -> None:
            head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\n"
            await exchange.send(head + b"# TYPE app counter\napp 1\napp_more 12")

        async with application(script) as app, application(ENVOY) as envoy, scraped(envoy, app) as at:
            body = await at.body()
            assert "app 1\n" in body and "envoy 1\n" in body
            assert "app_more" not in body
            assert at.scraper.account.sources[1].last_error == "the connection broke"

    asyncio.run(main())


def test_a_slow_application_does_not_hold_up_envoy_and_is_not_lost() -> None:
    async def main() -> None:
        envoy_may_answer, app_may_end = asyncio.Event(), asyncio.Event()

        async def slow(exchange: Exchange) -> None:
            await exchange.send(TEXT_HEAD + b"# HELP slow S.\n# TYPE slow counter\nslow 1\n# HELP late L.\nlate")
            envoy_may_answer.set()  # the application was first with its headers, and stops midway
            await app_may_end.wait()
            await exchange.send(b" 2\n")

        async def envoy_script(exchange: Exchange) -> None:
            await envoy_may_answer.wait()
            await ENVOY(exchange)

        async with application(slow) as app, application(envoy_script) as envoy, scraped(envoy, app) as at:
            received = b""
            async with aclosing(at.scraper.stream({}, "")) as blocks:
                async for block in blocks:
                    received += block
                    if b"envoy 1\n" in received:
                        app_may_end.set()
            assert foreign(received.decode()).endswith("# HELP late L.\nlate 2\n")
            assert received.index(b"slow 1\n") < received.index(b"# TYPE envoy") < received.index(b"# HELP late")

    asyncio.run(main())


def test_an_application_that_never_answers_is_dropped_at_the_deadline() -> None:
    async def main() -> None:
        async def silent(exchange: Exchange) -> None:
            await asyncio.Event().wait()

        async with application(silent) as app, application(ENVOY) as envoy, scraped(envoy, app) as at:
            body = await at.body({"X-Prometheus-Scrape-Timeout-Seconds": "1.5"})
            assert foreign(body).endswith("envoy 1\n")
            assert at.scraper.account.sources[1].last_error == "timed out"

    asyncio.run(main())


def test_a_body_cut_by_the_deadline_keeps_what_came() -> None:
    async def main() -> None:
        async def dripping(exchange: Exchange) -> None:
            await exchange.send(TEXT_HEAD + b"app 1\napp_half 1")
            await asyncio.Event().wait()

        async with application(dripping) as app, scraped(None, app) as at:
            assert foreign(await at.body({"X-Prometheus-Scrape-Timeout-Seconds": "1.5"})) == "app 1\n"
            assert at.scraper.account.sources[0].last_error == "timed out"

    asyncio.run(main())


def test_an_endless_body_is_cut_at_the_cap() -> None:
    async def main() -> None:
        async def endless(exchange: Exchange) -> None:
            await exchange.send(TEXT_HEAD)
            while True:
                await exchange.send(b"app 1\n" * 10_000)

        limits = ScrapeLimits(body_bytes=1_000_000)
        async with application(endless) as app, application(ENVOY) as envoy, scraped(envoy, app, limits=limits) as at:
            body = await at.body()
            assert 500_000 < len(foreign(body)) < 1_020_000 and body.endswith("\n")
            assert "envoy 1\n" in body
            assert at.scraper.account.sources[1].last_error == "more than 1000000 bytes"
            await eventually_async(lambda: app.left == 1)

    asyncio.run(main())


def test_a_line_without_end_is_refused() -> None:
    async def main() -> None:
        async def endless(exchange: Exchange) -> None:
            await exchange.send(TEXT_HEAD)
            while True:
                await exchange.send(b"x" * 65536)

        async with application(endless) as app, scraped(None, app) as at:
            body = await at.body()
            assert "xxx" not in body
            assert "a line of more than" in str(at.scraper.account.sources[0].last_error)

    asyncio.run(main())


def test_a_scraper_that_hangs_up_ends_the_reading_and_is_nobodys_failure() -> None:
    async def main() -> None:
        async def endless(exchange: Exchange) -> None:
            await exchange.send(TEXT_HEAD)
            while True:
                await exchange.send(b"app 1\n" * 10_000)

        async with application(endless) as app, scraped(None, app) as at:
            async with aclosing(at.scraper.stream({}, "")) as blocks:
                async for block in blocks:
                    if block.startswith(b"app"):
                        break
            await eventually_async(lambda: app.left == 1)
            assert at.scraper.account.failures("application") == 0
            assert at.log.lines == []

    asyncio.run(main())


def test_a_scraper_that_does_not_read_holds_the_source_back_without_blame() -> None:
    async def main() -> None:
        sent = 0

        async def endless(exchange: Exchange) -> None:
            nonlocal sent
            await exchange.send(TEXT_HEAD)
            while True:
                await exchange.send(b"app 1\n" * 10_000)
                sent += 60_000

        async with application(endless) as app, scraped(None, app) as at:
            blocks = at.scraper.stream({"X-Prometheus-Scrape-Timeout-Seconds": "1.5"}, "")
            async with aclosing(blocks):
                await anext(blocks)
                await eventually_async(lambda: app.left == 1)  # the deadline ends it, unread
                assert sent < 50_000_000
                rest = [block async for block in blocks]
            assert rest and sum(map(len, rest)) < 1_000_000
            assert at.scraper.account.failures("application") == 0

    asyncio.run(main())


def test_ten_overlapping_scrapes() -> None:
    async def main() -> None:
        everybody = asyncio.Barrier(10)

        async def together(exchange: Exchange) -> None:
            await everybody.wait()
            await APP(exchange)

        async with application(together) as app, application(ENVOY) as envoy, scraped(envoy, app) as at:
            bodies = await asyncio.gather(*(at.body({"Accept": "*/*"}) for _ in range(10)))
            assert all("\napp 1\n" in body and "\nenvoy 1\n" in body for body in bodies)
            assert at.scraper.account.scrapes == 10
            assert at.log.lines == []

    asyncio.run(main())


def test_chunked_and_large_bodies_come_whole() -> None:
    async def main() -> None:
        lines = [b'app{n="%d"} %d\n' % (number, number) for number in range(100_000)]

        async def chunked(exchange: Exchange) -> None:
            await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")
            whole = b"".join(lines)
            for start in range(0, len(whole), 7777):
                piece = whole[start : start + 7777]
                await exchange.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            await exchange.send(b"0\r\n\r\n")

        async with application(chunked) as app, application(ENVOY) as envoy, scraped(envoy, app) as at:
            body = await at.body()
            assert b"".join(lines).decode() in body.replace("# TYPE envoy counter\nenvoy 1\n", "")
            assert at.scraper.account.sources[1].bytes == sum(map(len, lines))

    asyncio.run(main())


def test_redirects_are_followed_and_a_path_may_hold_a_query() -> None:
    async def main() -> None:
        async def script(exchange: Exchange) -> None:
            if exchange.request.startswith(b"GET /m?x=a%20b "):
                await exchange.send(b"HTTP/1.1 307 Redirect\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")
            elif exchange.request.startswith(b"GET /elsewhere "):
                await APP(exchange)

        async with application(script) as app, scraped(None, app, path="/m?x=a b") as at:
            assert "\napp 1\n" in await at.body()

    asyncio.run(main())


def test_own_metrics_that_fail_cost_only_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with application(ENVOY) as envoy, scraped(envoy) as at:
            monkeypatch.setattr(at.scraper._own, "_render", lambda part, is_openmetrics: 1 / 0)
            assert await at.body() == "# TYPE envoy counter\nenvoy 1\n"
            assert at.scraper.account.agent_failures > 0

    asyncio.run(main())


def test_an_environment_of_proxies_is_not_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")

    async def main() -> None:
        async with application(APP) as app, scraped(None, app) as at:
            assert "\napp 1\n" in await at.body()

    asyncio.run(main())


OPENMETRICS_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"
    b"Connection: close\r\n\r\n"
)
OPENMETRICS_APP = text(b'# TYPE app counter\napp_total 1 # {trace_id="x"} 1\n# EOF\n', OPENMETRICS_HEAD)
ONLY_OPENMETRICS = "application/openmetrics-text;version=1.0.0"


@pytest.mark.parametrize("accept", ["", "*/*", "text/plain", f"{ONLY_OPENMETRICS},*/*;q=0.1", ONLY_OPENMETRICS])
def test_the_whole_answer_is_in_the_format_it_says(accept: str) -> None:
    async def main() -> None:
        async with (
            application(ENVOY) as envoy,
            application(OPENMETRICS_APP) as one,
            application(text(b"# TYPE plain counter\nplain 1\n")) as two,
            scraped(envoy, one, two) as at,
        ):
            for _ in range(2):
                kind = at.scraper.content_type(accept)
                body = await at.body({"Accept": accept})
                is_open = kind.startswith("application/openmetrics-text; version=1.0.0")
                assert is_open is (accept == ONLY_OPENMETRICS)
                families = list((parse_openmetrics if is_open else parse_text)(body))
                found = {sample.name: sample.value for family in families for sample in family.samples}
                names = {name.removesuffix("_total") for name in found}  # the text parser adds it to every counter
                assert {"envoy", "app", "plain", "istio_agent_ready", "process_open_fds"} <= names
                assert found["istio_agent_scrapes_in_flight"] == 1
                assert body.count("# EOF") == is_open
            assert b"Accept: text/plain;version=0.0.4\r\n" in envoy.requests[0]
            wanted = b"Accept: application/openmetrics-text" if is_open else b"Accept: text/plain;version=0.0.4,"
            assert wanted in one.requests[0] and wanted in two.requests[0]

    asyncio.run(main())


def test_openmetrics_is_preferred_until_a_source_turns_out_to_give_only_text() -> None:
    async def main() -> None:
        accept = f"{ONLY_OPENMETRICS},text/plain;q=0.5"
        async with application(OPENMETRICS_APP) as one, application(APP) as two, scraped(None, one, two) as at:
            body = await at.body({"Accept": accept})
            assert body.endswith("# EOF\n") and 'app_total 1 # {trace_id="x"} 1' in body
            assert [source.is_text_only for source in at.scraper.account.sources] == [False, True]
            assert at.scraper.content_type(accept).startswith("text/plain")
            assert "# EOF" not in await at.body({"Accept": accept})

    asyncio.run(main())


def test_what_a_source_did_is_in_the_same_answer() -> None:
    async def main() -> None:
        async with application(APP) as app, application(answer_404) as broken, scraped(None, app, broken) as at:
            body = await at.body()
            good, bad = f'source="application:{app.port}/metrics"', f'source="application:{broken.port}/metrics"'
            assert f"istio_agent_scrape_source_up{{{good}}} 1.0\n" in body
            assert f"istio_agent_scrape_source_bytes{{{good}}} 25.0\n" in body
            assert f"istio_agent_scrape_source_up{{{bad}}} 0.0\n" in body
            assert f"istio_agent_scrape_source_failures_total{{{bad}}} 1.0\n" in body
            assert f'istio_agent_scrape_source_last_error_info{{{bad},error="status 404"}} 1.0\n' in body.replace(
                f'{{error="status 404",{bad}}}', f'{{{bad},error="status 404"}}'
            )

    asyncio.run(main())


def test_a_query_of_an_application_is_in_no_label_and_no_log_line() -> None:
    async def main() -> None:
        async with application(answer_404) as app, scraped(None, app, app, path="/m?token=hush") as at:
            body = await at.body()
            assert "hush" not in body and "hush" not in "".join(at.log.lines)
            assert f'source="application:{app.port}/m"' in body and f'source="application:{app.port}/m#2"' in body

    asyncio.run(main())


def test_all_sources_together_have_a_cap() -> None:
    async def main() -> None:
        big = text(b"# TYPE big gauge\n" + b'big{x="1"} 1\n' * 50_000)
        limits = ScrapeLimits(total_bytes=700_000)
        async with application(big) as one, application(big) as two, scraped(None, one, two, limits=limits) as at:
            body = await at.body()
            assert len(body) < 750_000 and body.endswith("\n")
            errors = [str(source.last_error) for source in at.scraper.account.sources]
            assert any("more than 700000 bytes of all sources together" in error for error in errors)

    asyncio.run(main())


def test_an_error_page_with_status_200_is_left_out() -> None:
    async def main() -> None:
        page = text(b"<html>\n<body>It works\n", b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        async with application(ENVOY) as envoy, application(page) as app, scraped(envoy, app) as at:
            for _ in range(2):
                body = await at.body()
                assert foreign(body) == "# TYPE envoy counter\nenvoy 1\n"
                assert list(parse_text(body))
            source = at.scraper.account.sources[1]
            assert not source.is_up and source.failures == 2 and len(at.log.lines) == 1

    asyncio.run(main())


def test_an_applications_process_is_joined_with_ours() -> None:
    async def main() -> None:
        own = text(b'# TYPE process_open_fds gauge\nprocess_open_fds{app="x"} 7\nprocess_open_fds 8\n')
        async with application(own) as app, scraped(None, app) as at:
            body = await at.body()
            assert re.search(r'# TYPE process_open_fds gauge\nprocess_open_fds \S+\n.*{app="x"} 7\n', body)
            assert body.count("# TYPE process_open_fds") == 1 and "process_open_fds 8" not in body
            assert at.scraper.account.sources[0].dropped_samples == 1

    asyncio.run(main())
