"""The pod's labels and annotations as kubelet writes them: quoted by Go, perhaps missing, perhaps broken."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.node.podinfo import PodInfo, parse_downward_api, read_pod_info


def files(directory: Path, labels: str | None = None, annotations: str | None = None) -> PodInfo:
    paths = directory / "labels", directory / "annotations"
    for path, text in zip(paths, (labels, annotations), strict=True):
        if text is not None:
            path.write_text(text, encoding="utf-8")
    return read_pod_info(*map(str, paths))


@pytest.mark.parametrize(
    ("quoted", "value"),
    [
        (r'"plain"', "plain"),
        (r'""', ""),
        (r'"a \"quoted\" word"', 'a "quoted" word'),
        (r'"two\nlines\tand a \\ backslash"', "two\nlines\tand a \\ backslash"),
        (r'"bell \a, vertical \v, form \f, back \b, return \r"', "bell \a, vertical \v, form \f, back \b, return \r"),
        (r'"\x00\x1b\x7f"', "\x00\x1b\x7f"),
        (r'"\u00e9\u2028"', "é\u2028"),
        (r'"\U0001f600"', "\U0001f600"),
        ('"ümläut \U0001f600"', "ümläut \U0001f600"),
        (r'"{\"a\":\"b=c\"}"', '{"a":"b=c"}'),
        (r'"\303\251\xc3\xa9 \xff\xe2\x82."', "éé \ufffd\ufffd."),
        (r'"\001\177"', "\x01\x7f"),
        ('"a\tb\u2028c\x85d\x0ce"', "a\tb\u2028c\x85d\x0ce"),
        (r'"=\"="', '="='),
    ],
)
def test_values_are_unquoted_as_go_quotes_them(quoted: str, value: str) -> None:
    assert parse_downward_api(f"key={quoted}\n") == {"key": value}


def test_lines_without_an_equals_sign_are_skipped() -> None:
    assert parse_downward_api('\na="1"\nnothing here\n\nb.c/d="2=3"\n') == {"a": "1", "b.c/d": "2=3"}


@pytest.mark.parametrize(
    "quoted",
    [
        *('"open', '"', "", "bare", "'a'", "`a`", '"a" b', '"a"b"', r'"a\"'),
        *(
            r'"\q"',
            r'"\/"',
            r'"\x0"',
            r'"\u12"',
            r'"\0"',
            r'"\400"',
            r'"\ud83d\ude00"',
            r'"\U00110000"',
            r'"\N{DIGIT ONE}"',
        ),
    ],
)
def test_a_bad_quote_names_its_line(quoted: str) -> None:
    with pytest.raises(ValueError, match=r"^line 2: the value of 'b' is not a quoted text$"):
        parse_downward_api(f'a="good"\nb={quoted}\n')


GO_ESCAPES = {"\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v"}


def go_quoted(text: str) -> str:
    """As Go's %q, which kubelet uses, for text that is valid UTF-8."""
    return '"' + "".join(_go_escaped(character) for character in text) + '"'


def _go_escaped(character: str) -> str:
    code = ord(character)
    if character in '"\\':
        return f"\\{character}"
    if character in GO_ESCAPES:
        return GO_ESCAPES[character]
    if character == " " or character.isprintable():
        return character
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


@given(st.dictionaries(st.from_regex(r"[a-z][a-z./-]{0,8}", fullmatch=True), st.text(max_size=20), max_size=4))
def test_any_text_survives_gos_quoting(values: dict[str, str]) -> None:
    text = "".join(f"{key}={go_quoted(value)}\n" for key, value in values.items())
    assert parse_downward_api(text) == values


def test_missing_files_are_silent(tmp_path: Path) -> None:
    assert files(tmp_path) == PodInfo(None, None, ())


def test_an_empty_file_is_not_a_missing_one(tmp_path: Path) -> None:
    assert files(tmp_path, "", "") == PodInfo({}, {}, ())


def test_both_files_are_read_and_the_template_hash_is_hidden(tmp_path: Path) -> None:
    pod = files(tmp_path, 'app="web"\npod-template-hash="abc"\n', 'pod-template-hash="kept"\n')
    assert pod == PodInfo({"app": "web"}, {"pod-template-hash": "kept"})


def test_a_broken_file_is_a_warning_and_counts_as_missing(tmp_path: Path) -> None:
    pod = files(tmp_path, 'app="web\n', 'a="b"\n')
    assert pod.labels is None
    assert pod.annotations == {"a": "b"}
    assert pod.warnings == (f"""{tmp_path}/labels is ignored: line 1: the value of 'app' is not a quoted text""",)


def test_a_file_that_cannot_be_read_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "annotations").write_bytes(b'a="\xff"\n')
    pod = files(tmp_path)
    assert (pod.labels, pod.annotations) == (None, None)
    first, second = pod.warnings
    assert first.startswith(f"{tmp_path}/labels is ignored: [Errno 21] Is a directory")
    assert second.startswith(f"{tmp_path}/annotations is ignored: 'utf-8' codec can't decode byte 0xff")
