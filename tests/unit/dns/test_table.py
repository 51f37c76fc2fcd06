"""The name table as it is kept and shown."""

from pilot_agent.dns.table import NameTable

INFO = {"ips": ["10.0.0.1"], "registry": "Kubernetes", "shortname": "a", "namespace": "foo", "alt_hosts": ["b"]}


def test_before_the_first_table_there_is_a_reason_and_nothing_to_show() -> None:
    table = NameTable()
    assert table.reason() == "istiod has sent no name table yet"
    assert table.described() is None


def test_an_empty_table_is_one() -> None:
    table = NameTable()
    table.take({})
    assert table.reason() is None
    assert table.described() == {"table": {}}


def test_a_table_replaces_the_one_before_and_is_shown_without_what_is_empty() -> None:
    table = NameTable()
    table.take({"a.foo": INFO, "b.foo": INFO})
    table.take({"c.foo": {**INFO, "registry": "", "shortname": ""}})
    assert table.described() == {"table": {"c.foo": {"ips": ["10.0.0.1"], "namespace": "foo"}}}
