"""A file's documents: where it is cut, what is read again after a change, aliases, lines, kinds of other projects."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.mesh.model import Document, DocumentRefused
from pilot_agent.mesh.reading import kinds
from pilot_agent.mesh.reading.kinds import FileReader
from pilot_agent.mesh.reading.source import Chunk, Source, split
from tests.unit.mesh.declared import service_entry
from tests.unit.mesh.reading.outcome import WHOLE, read, refusal, warnings


class TestCutting:
    LINES = (
        "---", "--- ", "--- a", "---\t", "----", "--", " ---", "--- # c", "---|", "--- |", "--- >-", "---'", "---\r",
        '--- "', "--- '", "...", "... ", "%YAML 1.1", "%TAG ! tag:a,2000:", "# ---", "a: 1", "- a", "b: |", "  text",
        "c: >", "d: '", "'", 'e: "', '"', "\\", 'f: "\\', "g: [", "]", "h: &x 1", "i: *x", "? j", ": k", "l: !!str",
        "m", "", "\t", "\r---\r", "\x85---\x85", "\u2028--- x", "\ufeff---", "é: ü",
    )  # fmt: skip

    @given(st.lists(st.sampled_from(LINES), max_size=9), st.sampled_from(["\n", "\r\n"]), st.booleans())
    def test_the_pieces_say_what_the_whole_says(self, lines: list[str], end: str, is_ended: bool) -> None:
        content = (end.join(lines) + (end if is_ended else "")).encode()

        def outcome(chunks: Callable[[], list[Chunk]]) -> list[tuple[int, object]] | None:
            try:
                return [found for chunk in chunks() for found in chunk.documents()]
            except DocumentRefused:
                return None

        pieces = outcome(lambda: split("a.yaml", content))
        whole = outcome(lambda: [Chunk("a.yaml", content, 1)])
        assert [value for _, value in pieces or ()] == [value for _, value in whole or ()]
        assert (pieces is None) == (whole is None)
        if not any(mark in content.decode() for mark in "\r\x85\u2028"):  # YAML's line ends that an editor has not
            assert pieces == whole

    def test_a_line_of_dashes_ends_even_a_block_of_text(self) -> None:
        content = b"a: |\n  --- x\n ---\n"
        assert len(split("a.yaml", content)) == 1
        assert [value for chunk in split("a.yaml", b"a: |\n  b\n---\nc\n") for _, value in chunk.documents()] == [
            {"a": "b\n"},
            "c",
        ]

    def test_directives_and_json_are_not_cut(self) -> None:
        assert len(split("a.yaml", b"%YAML 1.1\n---\na\n---\nb\n")) == 1
        assert len(split("a.json", b'"\n---\n"')) == 1

    def test_a_bom_is_no_text(self) -> None:
        assert read("\ufeff" + service_entry("a")) == read(service_entry("a"))

    def test_lines_of_a_later_document(self) -> None:
        source = Source("a.yaml", b"# c\n---\na: 1\n---\n---\nb:\n  - c: 2\n")
        assert [source.line(document, ()) for document in range(3)] == [3, 5, 6]
        assert source.line(2, ("b", 0, "c")) == 7
        assert source.line(2, ("b", 5, "d")) == 6
        assert source.line(9, ()) == 1


class TestChanges:
    TEXTS = tuple(WHOLE.values())

    def joined(self, texts: list[str]) -> bytes:
        return "---\n".join(texts).encode()

    @given(
        st.lists(st.lists(st.sampled_from([*TEXTS, "", "# c\n", "kind: [\n", "kind: Other\n"]), max_size=6), max_size=4)
    )
    def test_a_reader_with_a_past_reads_the_same(self, versions: list[list[str]]) -> None:
        def outcome(reading: Callable[[bytes], Document], content: bytes) -> Document | str:
            try:
                return reading(content)
            except DocumentRefused as refused:
                return str(refused)

        reader = FileReader("a.yaml")
        for texts in versions:
            content = self.joined(texts)
            fresh = FileReader("a.yaml")
            assert outcome(reader.read, content) == outcome(fresh.read, content)

    def parsed(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """The lines of the pieces that are parsed from now on."""
        lines: list[int] = []
        parse = Chunk.documents

        def spy(chunk: Chunk) -> list[tuple[int, object]]:
            lines.append(chunk.line)
            return parse(chunk)

        monkeypatch.setattr(Chunk, "documents", spy)
        return lines

    def test_only_the_changed_document_is_parsed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        texts = [service_entry(name) for name in ("a", "b", "c")]
        reader = FileReader("a.yaml")
        before = reader.read(self.joined(texts))
        lines = self.parsed(monkeypatch)
        texts[1] = service_entry("b", port=8001)
        after = reader.read(self.joined(texts))
        assert lines == [15]
        assert [old is new for old, new in zip(before.resources, after.resources, strict=True)] == [True, False, True]

    def test_what_moved_has_a_new_origin(self, monkeypatch: pytest.MonkeyPatch) -> None:
        texts = [service_entry("a"), service_entry("b").replace("spec:", "spec:\n  other: 1")]
        reader = FileReader("a.yaml")
        reader.read(self.joined(texts))
        lines = self.parsed(monkeypatch)
        moved = reader.read(self.joined(["# one more line\n", *texts]))
        assert lines == [1, 2]  # the first one has its dashes now
        assert [(each.origin.line, each.origin.document) for each in moved.resources] == [(3, 0), (18, 1)]
        assert [warning.line for warning in moved.warnings] == [22]
        assert moved == kinds.read("a.yaml", self.joined(["# one more line\n", *texts]))

    def test_a_broken_version_costs_nothing_of_what_is_known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        texts = [service_entry(name) for name in ("a", "b", "c")]
        reader = FileReader("a.yaml")
        reader.read(self.joined(texts))
        lines = self.parsed(monkeypatch)
        with pytest.raises(DocumentRefused):
            reader.read(self.joined([texts[0], "kind: [\n", texts[2]]))
        reader.read(self.joined(texts))
        assert lines == [15, 15]

    def test_the_same_document_twice(self) -> None:
        first, second = FileReader("a.yaml").read(b"---\n" + self.joined([service_entry("a")] * 2)).resources
        assert second == first._replace(origin=second.origin)
        assert (first.origin.line, second.origin.line) == (2, 17)


ALIASES = {
    "a list in itself": ("kind: x\na: &a [*a]\n", 2),
    "a mapping in itself": ("# c\n&a {kind: *a}\n", 2),
    "a key that holds itself": ("k: &a {? *a : 1}\n", 1),
    "a merge of itself": ("kind: x\na: &a {<<: *a}\n", 2),
    "a list of lists": ("kind: List\nitems: &a [{kind: List, items: *a}]\n", 2),
    "in a later document": ("kind: x\n---\nkind: x\n---\nb: &a [*a]\n", 5),
}


@pytest.mark.parametrize(("text", "line"), ALIASES.values(), ids=ALIASES.keys())
def test_what_contains_itself_is_refused(text: str, line: int) -> None:
    assert refusal(text) == f"a.yaml:{line}: not YAML: it contains itself by an alias: write out what is meant"


def multiplied(levels: int, element: str) -> str:
    lines = [f"l{n}: &l{n} {element.replace('?', ', '.join([f'*l{n - 1}'] * 9))}\n" for n in range(1, levels)]
    return "l0: &l0 {x: 1}\n" + "".join(lines)


@pytest.mark.parametrize("element", ["[?]", "{<<: [?]}", "{a: [?]}"])
def test_aliases_that_multiply_are_refused(element: str) -> None:
    message = refusal(multiplied(30, element))
    assert message == "a.yaml:7: not YAML: its aliases stand for more than 200000 values: write less of them"


def test_aliases_of_all_documents_count_together() -> None:
    part = multiplied(5, "[?]") + "kind: x\napiVersion: a/v1\n"
    assert len(warnings(part)) == 1
    message = refusal("---\n".join(f"# {n}\n{part}" for n in range(30)))
    assert "has aliases that stand for more than 200000 values" in message


def test_merged_keys_are_not_keys_twice() -> None:
    """PyYAML merges `deep` into `kind` before it makes it."""
    text = "a: {b: {c: &deep {<<: &base {p: 1}, p: 2}}}\nkind: x\nother: {<<: *deep, p: 3}\n"
    assert len(warnings(text)) == 1
    assert refusal(text.replace("p: 3", "p: 3, p: 4")) == "a.yaml:3: not YAML: the key 'p' is there twice: remove one"


def test_a_value_that_can_not_be_is_found() -> None:
    assert refusal("kind: x\n---\na: 2024-01-01\nb:\n- 2024-13-45\n").startswith("a.yaml:5: not YAML: month must be in")


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("apiVersion: apps/v1\nkind: Deployment\n", "'Deployment' is not supported here"),
        ("apiVersion: serving.knative.dev/v1\nkind: Service\n", "'Service' is not supported here"),
        ("apiVersion: 5\nkind: [ServiceEntry]\n", "a list is not supported here"),
    ],
)
def test_kinds_of_others_are_a_warning_that_lists_ours(text: str, warning: str) -> None:
    (line,) = warnings(text)
    assert line.startswith(f"a.yaml:2: kind: {warning} and has no effect; supported: ServiceEntry, WorkloadEntry, ")


def test_a_list_of_every_kind() -> None:
    items = "".join("- " + text.rstrip().replace("\n", "\n  ") + "\n" for text in WHOLE.values())
    reading = read(f"apiVersion: v1\nkind: List\nitems:\n{items}- kind: Other\n")
    assert len(reading.resources) == len(WHOLE)
    assert [resource.origin.path for resource in reading.resources] == [("items", n) for n in range(len(WHOLE))]
    assert reading.resources[1].origin.line == 4 + WHOLE["ServiceEntry"].count("\n")
    assert [warning.field for warning in reading.warnings] == [f"items[{len(WHOLE)}].kind"]
