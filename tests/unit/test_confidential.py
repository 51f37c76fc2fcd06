"""The list of secrets that tests must not find: it finds them, and does not repeat them."""

import json

from tests.support.authority import Authority
from tests.support.confidential import confide, found_in


def test_a_key_is_found_by_any_of_its_private_lines() -> None:
    pair = Authority().pair("spiffe://td/x")
    line = pair.key.splitlines()[1]
    for data in (line, f"x={line};", json.dumps({"key": f"a\n{line}\n"}), line.encode()):
        (name,) = found_in(data)
        assert name.startswith("a key (") and line not in name
    assert found_in(pair.chain) == [], "what the certificate says is no secret"


def test_a_token_is_found_and_shortened() -> None:
    confide("header.payload-of-this-test.signature\n")
    assert found_in("authorization: Bearer header.payload-of-this-test.signature") == [
        "a token (head..., 37 characters)"
    ]


def test_the_marker_of_a_key_is_enough() -> None:
    assert found_in(b"-----BEGIN RSA PRIVATE KEY-----\n") == ["the marker PRIVATE KEY-----"]


def test_what_could_stand_anywhere_is_no_secret() -> None:
    confide("short")
    confide("")
    assert found_in("short and sweet") == []
