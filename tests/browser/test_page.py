"""The page at `/` in a real browser: what it says, when it says that nobody answers, and what it never does."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.browser import browser, console
from tests.support.eventually import eventually
from tests.support.status_stand import StatusStand

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

SILENT = r"The agent does not answer since \d\d:\d\d:\d\d\. What you see is older\."
NOTHING = "\N{EN DASH}"
HOSTILE = ["<script>window.hit = 1</script>", '"><img src=x onerror="window.hit = 1">', "&lt;b&gt; {{7*7}} \u202e"]


@pytest.fixture
def stand() -> Iterator[StatusStand]:
    running = StatusStand().start()
    yield running
    running.stop()


@pytest.fixture
def opened(stand: StatusStand) -> Iterator[Callable[..., "Chrome"]]:
    """Opens the page of the stand in a window of that many pixels and waits for the first status."""
    with ExitStack() as stack:

        def open_page(**size: int) -> "Chrome":
            running = stack.enter_context(browser(**size))
            running.get(stand.url)
            eventually(lambda: said(running, "ready") in ("Ready", "Not ready"), within=20)
            return running

        yield open_page


def said(page: "Chrome", element: str) -> str:
    """The text of the element as a person sees it: nothing when it is hidden. Its spaces are plain ones."""
    script = """((each) => each.checkVisibility() ? each.innerText.replaceAll("\\u00a0", " ") : "")(
        document.getElementById(arguments[0]))"""
    return str(evaluate(page, script, element))


def evaluate(page: "Chrome", expression: str, *arguments: object) -> Any:
    return page.execute_script(f"return {expression}", *arguments)


def rows(page: "Chrome", table: str) -> list[list[str]]:
    script = """[...document.getElementById(arguments[0]).tBodies[0].rows].map(
        row => [...row.cells].map(cell => cell.innerText.replaceAll("\\u00a0", " ").replaceAll("\\n", " ")))"""
    found: list[list[str]] = evaluate(page, script, table)
    return found


def is_silent(page: "Chrome") -> bool:
    return re.fullmatch(SILENT, said(page, "silence")) is not None


def test_says_what_the_status_says(opened: Callable[..., "Chrome"], stand: StatusStand) -> None:
    page = opened()
    assert said(page, "readiness") == "Ready"
    assert said(page, "agent-id") == "sidecar~10.4.1.7~reviews-v2-6b8d~shop.svc"
    assert said(page, "agent-uptime") == "2 h 15 min"
    assert rows(page, "gates")[1] == ["envoy", "open", "09:30:00 (2 h 15 min)"]
    assert [row[0] for row in rows(page, "gates")] == [gate["name"] for gate in stand.status["gates"]]
    assert [said(page, f"envoy-{name}") for name in ("epoch", "pid", "uptime")] == ["3", "1742", "4 min 14 s"]
    assert said(page, "envoy-restarts") == "crash: 2, change: 1"
    assert said(page, "envoy-exit") == "signal 9 after 1 min 1 s: killed from outside"
    assert said(page, "envoy-older") == "2 (pid 977)"
    assert rows(page, "listeners")[0] == ["virtualOutbound", "0.0.0.0:15001"]
    assert said(page, "certificates-none") == "None."
    assert [said(page, f"config-{name}") for name in ("accepted", "refused", "services")] == ["41", "1", "12"]
    assert said(page, "config-refusal") == stand.status["config"]["refusal"]
    assert said(page, "config-broken") == "mesh/ratings.yaml: line 7: spec.ports is not a list"
    assert said(page, "errors").split("\n") == ["the last thing that went wrong", "the first thing that went wrong"]
    assert rows(page, "scrapes") == [
        ["envoy", "31.2 ms", "1.8 MiB", "0", "none"],
        ["app:9080", "1,500 ms", "0 B", "4", "connection refused"],
    ]
    assert [said(page, f"memory-{name}") for name in ("envoy", "agent")] == ["58.2 MiB", "41 MiB"]
    assert said(page, "silence") == ""
    assert page.title == "Ready · sidecar~10.4.1.7~reviews-v2-6b8d~shop.svc · pilot-agent"
    assert console(page) == []


def test_follows_the_status(opened: Callable[..., "Chrome"], stand: StatusStand) -> None:
    page = opened()
    reason = "config: not received: listeners 0, clusters 4"
    gates = [*stand.status["gates"][:2], {"name": "config", "state": "closed", "reason": "not received"}]
    stand.status |= {"ready": False, "reason": reason, "gates": gates, "listeners": [], "errors": []}
    eventually(lambda: said(page, "ready") == "Not ready")
    assert said(page, "reason") == reason
    assert len(rows(page, "gates")) == 3
    assert rows(page, "gates")[2][1] == "closed not received"
    assert [said(page, f"{name}-none") for name in ("listeners", "errors")] == ["None.", "None."]
    assert said(page, "listeners") == ""
    assert page.title.startswith("Not ready · ")
    stand.status |= {"ready": True, "reason": None, "envoy": None, "certificates": [{"name": "default", "serial": 7}]}
    eventually(lambda: said(page, "ready") == "Ready")
    assert said(page, "reason") == ""
    assert said(page, "envoy-none") == "No Envoy runs." and said(page, "envoy") == ""
    assert said(page, "certificates").split() == ["name", "serial", "default", "7"]
    assert console(page) == []


def test_keeps_what_it_has_while_nobody_answers_and_resumes_by_itself(
    opened: Callable[..., "Chrome"], stand: StatusStand
) -> None:
    page = opened()
    stand.stop()
    eventually(lambda: is_silent(page), within=10)
    since = said(page, "silence")
    assert said(page, "ready") == "Ready" and len(rows(page, "gates")) == 7
    assert page.title.startswith("No answer · ")
    stand.status |= {"ready": False, "reason": "terminating: told to stop"}
    stand.start()
    eventually(lambda: said(page, "ready") == "Not ready", within=10)
    assert said(page, "silence") == "" and since != ""
    assert page.title.startswith("Not ready · ")
    assert {entry["source"] for entry in console(page)} <= {"network"}  # the browser's own word on a refused connection


@pytest.mark.parametrize(
    ("code", "raw", "what"),
    [
        (500, None, r"The agent answers with an error \(500\) since "),
        (200, b"{half", "The agent's answers can't be read since "),
        (200, b"null", "The agent's answers can't be read since "),
        (200, b"[]", "The agent's answers can't be shown since "),
    ],
)
def test_an_answer_that_is_no_status_is_said_and_gone_with_the_next_good_one(
    opened: Callable[..., "Chrome"], stand: StatusStand, code: int, raw: bytes | None, what: str
) -> None:
    page = opened()
    stand.code, stand.raw = code, raw
    eventually(lambda: re.match(what, said(page, "silence")))
    stand.code, stand.raw = 200, None
    eventually(lambda: said(page, "silence") == "")


def test_the_least_status_that_can_be_is_shown(opened: Callable[..., "Chrome"], stand: StatusStand) -> None:
    """What is null or missing is a dash or a "none"; nothing is drawn wrong for want of a fact."""
    stand.status = {
        "agent": {"version": None},
        "ready": False,
        "reason": None,
        "gates": [{"name": "envoy", "state": "closed", "reason": None, "since_seconds": None, "since": None}],
        "envoy": {"epoch": 0, "pid": None, "restarts": {}, "last_exit": None, "older_epochs": []},
        "listeners": [{"name": None, "address": None}],
        "certificates": ["one"],
        "config": {"accepted": None, "refused": 0, "refusal": None, "broken_files": [], "services": None},
        "errors": [],
        "traffic": None,
        "memory": {"agent_bytes": None, "envoy_bytes": None},
        "scrapes": [{"source": "envoy", "seconds": None, "bytes": None, "failures": 0, "last_error": None}],
    }
    page = opened()
    assert said(page, "reason") == "no reason was given"
    assert said(page, "envoy-epoch") == "0" and said(page, "envoy-pid") == NOTHING
    assert said(page, "envoy-restarts") == said(page, "envoy-exit") == said(page, "envoy-older") == "none"
    assert said(page, "requests-now") == said(page, "memory-envoy") == NOTHING
    assert rows(page, "scrapes") == [["envoy", NOTHING, NOTHING, "0", "none"]]
    assert rows(page, "certificates") == [["one"]]
    shown = evaluate(page, "document.body.innerText")
    assert not [word for word in ("undefined", "null", "NaN", "Infinity", "[object") if word in shown]
    assert said(page, "silence") == ""
    assert console(page) == []


def hostile_status(status: dict[str, Any], text: str) -> dict[str, Any]:
    """The same status with `text` as every text in it."""

    def spoil(value: Any) -> Any:
        if isinstance(value, dict):
            return {(text if key in ("crash", "hang") else key): spoil(each) for key, each in value.items()}
        if isinstance(value, list):
            return [spoil(each) for each in value]
        return text if isinstance(value, str) else value

    spoiled: dict[str, Any] = spoil(status)
    return spoiled | {"ready": False, "reason": text, "certificates": [{text: text}]}


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_is_only_shown(opened: Callable[..., "Chrome"], stand: StatusStand, text: str) -> None:
    count = "[document.images.length, document.scripts.length, document.querySelectorAll('*').length]"
    plain = hostile_status(stand.status, "plain")
    stand.status = plain
    page = opened()
    before = evaluate(page, count)
    stand.status = hostile_status(stand.status, text)
    eventually(lambda: said(page, "reason") == text)
    assert rows(page, "listeners")[0] == [text, text]
    assert text in rows(page, "gates")[0][1]
    assert text in page.title
    assert evaluate(page, count) == before
    assert evaluate(page, "window.hit") is None
    assert console(page) == []


def test_the_browser_itself_refuses_to_make_markup_of_a_text(opened: Callable[..., "Chrome"]) -> None:
    page = opened()
    tried = "(() => { try { document.body.innerHTML = 'x'; return 'made'; } catch (error) { return error.name; } })()"
    assert evaluate(page, tried) == "TypeError"


def test_nothing_is_asked_of_anybody_else(opened: Callable[..., "Chrome"], stand: StatusStand) -> None:
    page = opened()
    eventually(lambda: stand.asked() >= 3, within=10)
    loaded = evaluate(page, "performance.getEntriesByType('resource').map(each => each.name)")
    assert {each for each in loaded if not each.startswith("data:")} == {f"{stand.url}debug/status"}
    assert set(stand.paths) == {"/", "/debug/status"}


def test_asks_only_while_it_is_in_sight(opened: Callable[..., "Chrome"], stand: StatusStand) -> None:
    page = opened()
    first = page.current_window_handle
    other = StatusStand().start()
    try:
        page.switch_to.new_window("tab")
        before = stand.asked()
        page.get(other.url)
        # The second page asks every second, and so measures the first one's silence.
        eventually(lambda: other.asked() >= 4, within=20)
        assert stand.asked() <= before + 1  # one may have been on its way
        stand.status |= {"ready": False, "reason": "while nobody looked"}
        page.switch_to.window(first)
        eventually(lambda: said(page, "reason") == "while nobody looked")
        assert said(page, "silence") == ""
    finally:
        other.stop()


def curve(page: "Chrome", chart: str, line: str = "first") -> str:
    script = "document.querySelector(`#${arguments[0]} .curve[data-line=${arguments[1]}]`).getAttribute('d') || ''"
    return str(evaluate(page, script, chart, line))


def test_charts_draw_requests_per_second_and_memory(opened: Callable[..., "Chrome"], stand: StatusStand) -> None:
    page = opened()
    assert curve(page, "requests") == "" and said(page, "requests-now") == NOTHING  # one total is no rate
    stand.status["traffic"]["requests_total"] = 61_000
    eventually(lambda: curve(page, "requests").count("L") >= 2)
    assert curve(page, "requests").count("M") == 1
    assert "61,000 in all" in said(page, "requests-more")
    assert float(str(evaluate(page, "document.querySelector('#requests .top').textContent")).replace(",", "")) >= 20_000
    assert curve(page, "memory").count("L") >= 2 and curve(page, "memory", "second").count("L") >= 2
    assert evaluate(page, "document.querySelector('#memory .top').textContent") == "60 MiB"

    stand.status["traffic"]["requests_total"] = 5  # a new Envoy counts from 0: a gap, not a fall
    eventually(lambda: curve(page, "requests").count("M") == 2)
    assert "-" not in curve(page, "requests")
    stand.status["memory"]["envoy_bytes"] = None
    eventually(lambda: said(page, "memory-envoy") == NOTHING)
    assert console(page) == []


FAST = """
    const wait = window.setTimeout, now = performance.now.bind(performance);
    let calls = 0;
    window.setTimeout = (call, time) => wait(call, time === 1000 ? 10 : time);
    performance.now = () => now() + 5000 * calls++;
"""
"""Between two questions 5 s go by on the page's clock, and none outside."""


def test_charts_forget_what_is_older_than_five_minutes(opened: Callable[..., "Chrome"], stand: StatusStand) -> None:
    page = opened()
    page.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": FAST})
    page.refresh()
    asked = stand.asked()
    eventually(lambda: stand.asked() >= asked + 80, within=30)
    points = [float(x) for x in re.findall(r"[ML]([-\d.]+) ", curve(page, "memory"))]
    assert 50 <= len(points) <= 61  # a sample each 5 s, or a little more
    assert 0 <= points[0] < 7 and points[-1] == 300
    assert curve(page, "memory").count("M") == 1
    assert console(page) == []


def test_the_pointer_reads_a_sample(opened: Callable[..., "Chrome"]) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    page = opened()
    plot = page.find_element(By.CSS_SELECTOR, "#memory .plot")
    ActionChains(page).move_to_element_with_offset(plot, plot.rect["width"] // 2 - 1, 0).perform()
    shown = "document.querySelector('#memory .readout').innerText"
    eventually(lambda: re.fullmatch(r"\d s ago: 58.2 MiB / 41 MiB", evaluate(page, shown)))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_is_readable_in_light_and_dark(opened: Callable[..., "Chrome"], scheme: str) -> None:
    page = opened()
    page.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    colours = (
        "['color', 'backgroundColor'].map(name => getComputedStyle(document.body)[name].match(/\\d+/g).map(Number))"
    )
    ink, ground = evaluate(page, colours)
    assert (sum(ink) > sum(ground)) == (scheme == "dark")
    assert abs(sum(ink) - sum(ground)) > 400


def test_fits_a_narrow_window(opened: Callable[..., "Chrome"], stand: StatusStand) -> None:
    stand.status["reason"] = stand.status["gates"][2]["reason"] = "x" * 300
    stand.status["listeners"][0]["name"] = "outbound_" * 40
    stand.status["ready"] = False
    page = opened(width=400, height=800)
    assert evaluate(page, "window.innerWidth") == 400
    assert evaluate(page, "document.documentElement.scrollWidth <= window.innerWidth")
    outside = """[...document.body.querySelectorAll("*")].filter(each => !each.closest(".scroll table, svg")
        && each.getBoundingClientRect().right > window.innerWidth).map(each => each.outerHTML)"""
    assert evaluate(page, outside) == []


def test_every_link_is_reached_with_the_keyboard(opened: Callable[..., "Chrome"]) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    page = opened()
    reached = []
    for _ in range(4):
        ActionChains(page).send_keys(Keys.TAB).perform()
        reached.append(evaluate(page, "document.activeElement.getAttribute('href')"))
    assert reached == ["debug/status", "debug/shutdown", "healthz/ready?verbose", "metrics"]


def test_a_screen_reader_hears_the_readiness_once_and_finds_its_way(
    opened: Callable[..., "Chrome"], stand: StatusStand
) -> None:
    page = opened()
    watch = """window.heard = 0;
        new MutationObserver(found => { window.heard += found.length; }).observe(
            document.getElementById("readiness"), { childList: true, characterData: true, subtree: true });"""
    page.execute_script(watch)
    asked = stand.asked()
    eventually(lambda: stand.asked() >= asked + 3, within=10)
    assert evaluate(page, "window.heard") == 0  # the same text is not written again
    nodes = page.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    found = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
    assert [role for role, _ in found].count("main") == 1
    headings = ["Gates", "Requests per second", "Resident memory", "Envoy", "Configuration"]
    headings += ["Last errors", "Scrape sources", "Listeners", "Certificates"]
    assert [name for role, name in found if role == "heading"][1:] == headings
    assert ("rowheader", "envoy") in found and ("columnheader", "Since") in found
    (chart,) = [name for role, name in found if role == "image" and name.startswith("Requests")]
    assert "1,000 in all" in chart
