import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from pilot_agent.bootstrap.render import templates_directory
from pilot_agent.status import page

Attributes = dict[str, str]


class Document(HTMLParser):
    """The page's elements in order, and the text of its styles and scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, Attributes]] = []
        self.texts: dict[str, list[str]] = {"style": [], "script": []}
        self._within = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._within = tag if tag in self.texts else ""
        if self._within:
            self.texts[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within:
            self.texts[self._within][-1] += data

    def all(self, tag: str) -> list[Attributes]:
        return [attributes for name, attributes in self.elements if name == tag]

    def values(self, attribute: str) -> list[str]:
        return [attributes[attribute] for _, attributes in self.elements if attribute in attributes]


@pytest.fixture(scope="module")
def text() -> str:
    return page.page().decode()


@pytest.fixture(scope="module")
def document(text: str) -> Document:
    return Document(text)


def shipped(name: str) -> str:
    return (templates_directory() / "page" / name).read_text()


def policy_of(document: Document) -> dict[str, str]:
    (found,) = (meta["content"] for meta in document.all("meta") if "http-equiv" in meta)
    return {name: value for name, _, value in (rule.partition(" ") for rule in found.split("; "))}


def sha256(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_the_document_needs_nothing_from_anywhere(text: str, document: Document) -> None:
    assert text.startswith("<!doctype html>")
    assert not re.search(r"https?:|@import|\burl\(|\bimport\b", text, re.IGNORECASE)
    assert document.values("src") == []
    elsewhere = [place for place in document.values("href") if not re.fullmatch(r"data:,|[a-z/]+(\?verbose)?", place)]
    assert elsewhere == []
    assert not [place for place in document.values("href") if place.startswith("/")]  # also behind a proxy's prefix


def test_style_and_script_are_the_shipped_ones(document: Document) -> None:
    assert document.texts == {"style": [shipped("style.css")], "script": [shipped("page.js")]}


def test_the_policy_allows_this_style_and_this_script_and_no_other(document: Document) -> None:
    policy = policy_of(document)
    assert policy["default-src"] == "'none'"
    assert policy["style-src"] == sha256(document.texts["style"][0])
    assert policy["script-src"] == sha256(document.texts["script"][0])
    assert policy["connect-src"] == "'self'"
    assert policy["img-src"] == "data:"
    assert policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'" and policy["trusted-types"] == "'none'"


def test_the_policy_comes_before_what_it_governs(document: Document) -> None:
    tags = [name for name, _ in document.elements]
    assert tags.index("meta") < min(tags.index("style"), tags.index("script"), tags.index("link"))
    assert "http-equiv" in document.all("meta")[0]


def test_the_header_says_the_same_and_forbids_frames(document: Document) -> None:
    headers = page.headers()
    rules = headers["Content-Security-Policy"].split("; ")
    assert rules.pop() == "frame-ancestors 'none'"
    assert dict(rule.split(" ", 1) for rule in rules) == policy_of(document)
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Type"] == "text/html; charset=utf-8"


def test_nothing_is_inline_that_the_policy_would_refuse(document: Document) -> None:
    assert document.values("style") == []
    assert [name for _, attributes in document.elements for name in attributes if name.startswith("on")] == []


def test_the_script_makes_no_markup_of_a_text() -> None:
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|setHTML|document\.write|DOMParser|\beval\b|new Function|srcdoc"
    assert not re.search(forbidden, shipped("page.js"))
    assert "textContent" in shipped("page.js")


def test_every_element_that_the_script_writes_to_is_in_the_document(document: Document) -> None:
    script = shipped("page.js")
    named = set(re.findall(r'\bat\("([\w-]+)"\)', script)) | set(re.findall(r'^    "([\w-]+)":', script, re.MULTILINE))
    for each in re.findall(r'fillOrSayNone\("([\w-]+)"', script):
        named |= {each, f"{each}-none"}
    assert len(named) > 30
    assert named <= set(document.values("id"))


def test_ids_are_unique_and_labels_lead_somewhere(document: Document) -> None:
    ids = document.values("id")
    assert len(ids) == len(set(ids))
    assert {each for value in document.values("aria-labelledby") for each in value.split()} <= set(ids)


def test_readiness_and_silence_are_said_aloud(document: Document) -> None:
    by_id = {attributes["id"]: attributes for _, attributes in document.elements if "id" in attributes}
    assert by_id["readiness"] | {"role": "status", "aria-live": "polite", "aria-atomic": "true"} == by_id["readiness"]
    assert by_id["silence"]["role"] == "alert"


def test_a_document_without_a_place_for_the_script_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {name: shipped(name).encode() for name in ("index.html", "style.css", "page.js")}
    monkeypatch.setattr(page, "_shipped", whole.__getitem__)
    assert page.page()
    whole["index.html"] = whole["index.html"].replace(b"page.js", b"other.js")
    with pytest.raises(ValueError, match=r"page\.js"):
        page.page()


def colours() -> dict[str, dict[str, str]]:
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
        for block in re.findall(r":root \{(.*?)\}", shipped("style.css"), re.DOTALL)
    )
    assert light.keys() == dark.keys()
    return {"light": light, "dark": dark}


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


TEXTS = [(name, "card") for name in ("ink", "quiet", "link", "good", "bad")]
TEXTS += [(name, "good-ground") for name in ("good", "ink", "quiet")] + [("warn", "warn-ground")]
TEXTS += [(name, "bad-ground") for name in ("bad", "ink", "quiet")] + [("quiet", "ground"), ("link", "ground")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("text_colour", "ground", "least"), [(*pair, 4.5) for pair in TEXTS] + [
    ("first", "card", 3.0),
    ("second", "card", 3.0),
])  # fmt: skip
def test_texts_and_lines_stand_out_from_their_ground(scheme: str, text_colour: str, ground: str, least: float) -> None:
    """Web Content Accessibility Guidelines 2.1, success criteria 1.4.3 and 1.4.11."""
    names = colours()[scheme]
    darker, lighter = sorted((luminance(names[text_colour]), luminance(names[ground])))
    assert (lighter + 0.05) / (darker + 0.05) >= least
