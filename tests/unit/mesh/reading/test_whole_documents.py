"""Every kind: a whole document has no warning, and whatever is done to one, it is read or cleanly refused."""

import copy
import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.mesh.model import DocumentRefused
from pilot_agent.mesh.reading import kinds
from tests.unit.mesh.reading.outcome import WHOLE, read, refusal, warnings

PARSED = {kind: yaml.safe_load(text) for kind, text in WHOLE.items()}


def test_there_is_one_of_every_kind() -> None:
    assert list(WHOLE) == list(kinds.KINDS)


@pytest.mark.parametrize("kind", WHOLE)
def test_a_whole_document_has_no_warning(kind: str) -> None:
    reading = read(WHOLE[kind])
    assert (len(reading.resources), reading.warnings) == (1, ())
    assert type(reading.resources[0]).__name__ in (kind, f"Kubernetes{kind}", "ServiceEndpoints")


@pytest.mark.parametrize("kind", WHOLE)
def test_every_version_of_a_kind_means_the_same(kind: str) -> None:
    first, *others = kinds.KINDS[kind].versions
    for version in others:
        text = WHOLE[kind].replace(f"apiVersion: {first}\n", f"apiVersion: {version}\n")
        assert read(text) == read(WHOLE[kind])
    assert "a.yaml:1: apiVersion: " in refusal(WHOLE[kind].replace(f"apiVersion: {first}\n", f"apiVersion: {first}9\n"))
    assert refusal(WHOLE[kind].replace(f"apiVersion: {first}\n", "")).startswith("a.yaml:1: apiVersion: is missing")


@pytest.mark.parametrize("kind", WHOLE)
def test_a_mistyped_field_is_a_warning_at_its_line(kind: str) -> None:
    text = WHOLE[kind].rstrip().replace("\nspec:\n", "\nspec:\n  mispelled: 1\n") + "\nothers: 1\n"
    wanted = ["others"] if "spec:" not in text else ["spec.mispelled", "others"]
    found = {line.split(": ")[1]: line.split(": ")[2] for line in warnings(text)}
    assert found == dict.fromkeys(wanted, "is not supported here and has no effect")


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every place of a document but its top."""
    found = [path] if path else []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in pairs:
        found += places(below, (*path, key))
    return found


WORDS = [
    "",
    "*",
    ".",
    "~",
    "*.a.org",
    "a.org",
    "a b",
    "10.0.0.1",
    "::1",
    "10.0.0.0/8",
    "5s",
    "0s",
    "-1s",
    "1ns",
    "(",
    "1",
]
WORDS += ["unix:///a", "%", "a\nb", "\ud800", "mesh", "a/b", "NONE", "DNS", "UDP", "None", ":80", "x" * 2000]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-1, 70_000)
    | st.integers()
    | st.floats()
    | st.sampled_from(WORDS)
    | st.text(max_size=8)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(data=st.data())
def test_a_changed_document_is_read_or_cleanly_refused(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(PARSED)))
    document = copy.deepcopy(PARSED[kind])
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(document)))
        owner = document
        for step in path[:-1]:
            owner = owner[step]
        match data.draw(st.sampled_from(["replace", "replace", "remove", "add"])):
            case "replace":
                owner[path[-1]] = data.draw(VALUES)
            case "remove":
                del owner[path[-1]]
            case "add" if isinstance(owner, dict):
                owner[data.draw(st.text())] = data.draw(VALUES)
            case _:
                owner.append(data.draw(VALUES))
        if not places(document):
            return
    content = json.dumps(document).encode()
    try:
        reading = kinds.read("a.json", content)
    except DocumentRefused as refused:
        assert refused.line and refused.field and str(refused).isprintable() and len(str(refused)) < 4000
    else:
        assert all(warning.line and warning.field for warning in reading.warnings)
        assert all(str(warning).isprintable() for warning in reading.warnings)
        json.dumps(reading.resources, ensure_ascii=False, allow_nan=False).encode()  # as Envoy will get it
