"""Whether Envoy, which has RE2, will take a regular expression: it refuses a whole route table for one it does not.

Python's own parser judges the expression once what only RE2 has is replaced, and what RE2 does not have is refused.
"""

import re
import warnings

MAX_REPEAT = 1000
"""Of RE2: of one `{n}`, and of those inside one another multiplied."""

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


def _as_python(pattern: str) -> str:
    """An expression Python refuses where RE2 does. It need not match the same."""
    parts: list[str] = []
    counts = [1]  # of each open group: the largest repetition in it
    last = 1  # the repetitions of what was read last
    is_repeated = False
    for token in _TOKEN.finditer(pattern):
        kind, text = token.lastgroup, token[0]
        if token["repeat"]:
            if is_repeated:
                raise _NotRe2(f"{text} has nothing of its own to repeat")
            last *= _count(token)
            if last > MAX_REPEAT:
                raise _NotRe2(f"{text} repeats more than {MAX_REPEAT} times, all in all")
        elif token["group"]:
            counts.append(1)
        elif token["end"]:
            last = counts.pop() if len(counts) > 1 else 1
        else:
            last = 1
        is_repeated = bool(token["repeat"] or token["flags"])
        counts[-1] = max(counts[-1], last)
        parts.append(_token_as_python(token, kind or "", text))
    return "".join(parts)


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
    if not part["letter"]:
        return "a" if part["one"] else part[0]
    if part["letter"] not in _SET_LETTERS:
        raise _NotRe2(rf"RE2 does not know \{part['letter']} in a set")
    return rf"\{part['letter']}" + (r"\-" if part["dash"] else "")


def _escape_as_python(escape: str) -> str:
    if (escape[0] in "pPx" and len(escape) > 1) or (escape.isdigit() and (escape[0] == "0" or len(escape) > 1)):
        return "a"
    if escape.isdigit():
        raise _NotRe2(rf"RE2 has no references to groups, as \{escape} is")
    if escape.isalnum() and escape not in _LETTERS:
        raise _NotRe2(rf"RE2 does not know \{escape}")
    return {"z": r"(?:\Z)", "b": r"(?:\b)", "B": r"(?:\B)", "A": r"(?:\A)", "C": "."}.get(escape, rf"\{escape}")
