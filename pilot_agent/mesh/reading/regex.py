"""Whether Envoy, which has RE2, will take a regular expression: it refuses a whole route table for one it does not.

Python's own parser judges the expression once what only RE2 has is replaced, and what RE2 does not have is refused.
"""

import re
import warnings

MAX_REPEAT = 1000
"""Of RE2: of one `{n}`, and of those inside one another multiplied."""

MAX_SIZE = 32_000
"""Of the program RE2 makes, estimated from above: the bootstrap allows 32,768, as Istio's does."""

_TOKEN = re.compile(
    r"""
    \\Q(?P<quoted>.*?)(?:\\E|\Z)
    | (?P<set>\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\])
    | \\(?P<escape>[pP](?:\{[^}]*\}|.)|x\{[0-9A-Fa-f]+\}|x[0-9A-Fa-f]{2}|0[0-7]{0,2}|[1-7][0-7]{1,2}|.)
    | (?P<group>\((?:\?(?:P?<\w+>|[imsU]*(?:-[imsU]+)?:))?)(?!\?)
    | (?P<flags>\(\?[imsU]*(?:-[imsU]+)?\))
    | (?P<end>\))
    | (?P<repeat>[*+?]\??|\{(?P<least>\d+)(?P<range>,(?P<most>\d*))?\}\??)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_LETTERS = frozenset("AabBCdDfnrsStvwWz")
_SET_LETTERS = frozenset("adDfnrsStvwW")
_IN_SET = re.compile(
    r"""
    (?P<one>\[:\^?\w+:\]|\\(?:[pP](?:\{[^}]*\}|.)|x\{[0-9A-Fa-f]+\}|x[0-9A-Fa-f]{2}|0[0-7]{0,2}|[1-7][0-7]{1,2}))
    | \\(?P<letter>\w)(?P<dash>-?)
    | \\.
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)


def complaint(pattern: str) -> str:
    """What is wrong with it, for a message; "" for nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sets that a future Python may read in another way
            re.compile(_as_python(pattern))
    except _NotRe2 as error:
        return str(error)
    except re.error as error:
        return f"{error.msg} at character {(error.pos or 0) + 1}"
    except (RecursionError, OverflowError):
        return "it is nested too deep"
    return ""


class _NotRe2(Exception):
    pass


class _Group:
    """An open group: the size of what is in it so far, and the most often that anything in it is repeated."""

    def __init__(self, size: int = 0, count: int = 1) -> None:
        self.size, self.count = size, count


def _as_python(pattern: str) -> str:
    """An expression Python refuses where RE2 does. It need not match the same."""
    parts: list[str] = []
    groups = [_Group()]
    last = _Group()  # what a repetition would repeat
    is_repeated = False
    for token in _TOKEN.finditer(pattern):
        kind, text = token.lastgroup, token[0]
        if token["repeat"]:
            if is_repeated:
                raise _NotRe2(f"{text} has nothing of its own to repeat")
            count = _count(token)
            groups[-1].size += last.size * (count - 1)
            last = _Group(last.size * count, last.count * count)
            if last.count > MAX_REPEAT:
                raise _NotRe2(f"{text} repeats more than {MAX_REPEAT} times, all in all")
        elif token["group"]:
            groups.append(last := _Group(3))
        else:
            last = groups.pop() if token["end"] and len(groups) > 1 else _Group(_size(token))
            groups[-1].size += last.size
        groups[-1].count = max(groups[-1].count, last.count)
        if groups[-1].size > MAX_SIZE:
            raise _NotRe2("it is too large for Envoy once its repetitions are written out")
        is_repeated = bool(token["repeat"] or token["flags"])
        parts.append(_token_as_python(token, kind or "", text))
    return "".join(parts)


def _size(token: re.Match[str]) -> int:
    """What one character or set takes: Envoy's RE2 reads bytes, so none takes much."""
    text = token[0]
    if token["set"] or token["quoted"]:
        return 4 * len(text.encode())
    return 8 if text.startswith("\\") else 2 * len(text.encode())


def _count(token: re.Match[str]) -> int:
    return max(1, int(token["most"] or 0), int(token["least"] or 0)) if token["least"] else 1


def _token_as_python(token: re.Match[str], kind: str, text: str) -> str:
    if kind == "quoted" or text.startswith(r"\Q"):
        return re.escape(token["quoted"] or "")
    if token["set"]:
        return "[" + _IN_SET.sub(_in_set_as_python, text[1:])
    if token["escape"]:
        return _escape_as_python(token["escape"])
    if token["flags"]:
        return "(?:)"
    if token["group"]:
        return "(" if text == "(" or "<" in text else "(?:"
    if text == "(":
        raise _NotRe2("RE2 has no look-around, no conditions and no comments")
    return f"(?:{text})" if text in "^$" else text


def _in_set_as_python(part: re.Match[str]) -> str:
    if part["one"]:
        return "a" if part["one"].startswith("[") else _escape_as_python(part["one"][1:])
    if not part["letter"]:
        return part[0]
    if part["letter"] not in _SET_LETTERS:
        raise _NotRe2(rf"RE2 does not know \{part['letter']} in a set")
    return rf"\{part['letter']}" + (r"\-" if part["dash"] else "")


def _escape_as_python(escape: str) -> str:
    if escape.startswith("x{") and int(escape[2:-1], 16) > 0xFF:
        raise _NotRe2(rf"\{escape} is no byte, which is all Envoy's RE2 reads")
    if (escape[0] in "pPx" and len(escape) > 1) or (escape.isdigit() and (escape[0] == "0" or len(escape) > 1)):
        return "a"
    if escape.isdigit():
        raise _NotRe2(rf"RE2 has no references to groups, as \{escape} is")
    if escape.isalnum() and escape not in _LETTERS:
        raise _NotRe2(rf"RE2 does not know \{escape}")
    return {"z": r"(?:\Z)", "b": r"(?:\b)", "B": r"(?:\B)", "A": r"(?:\A)", "C": "."}.get(escape, rf"\{escape}")
