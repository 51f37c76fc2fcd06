"""What istioctl printed for a real sidecar, our views print byte for byte."""

import json

import pytest

from pilot_agent.inspect import config_dump, documents, views
from pilot_agent.inspect.ordering import ordered
from pilot_agent.inspect.views import Wanted
from tests.support import demo_dumps
from tests.support.dumps import RECORDED_AT, recorded


def shown(view: str, wanted: Wanted | None = None) -> str:
    name = "clusters.json" if view == "endpoints" else "config_dump.json"
    dump = config_dump.parse(recorded(name).encode(), name)
    return views.SINGLE[view](dump, wanted or Wanted(), RECORDED_AT)


@pytest.mark.parametrize(
    ("view", "wanted", "name"),
    [
        ("listeners", Wanted(), "listeners.txt"),
        ("listeners", Wanted(port=15006), "listeners-port-15006.txt"),
        ("routes", Wanted(), "routes.txt"),
        ("routes", Wanted(is_verbose=False), "routes-short.txt"),
        ("clusters", Wanted(), "clusters.txt"),
        ("endpoints", Wanted(), "endpoints.txt"),
        ("secrets", Wanted(), "secret.txt"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_a_view_is_istioctls(view: str, wanted: Wanted, name: str) -> None:
    assert shown(view, wanted) == recorded(name)


def test_everything_is_istioctls() -> None:
    dump = config_dump.parse(recorded("config_dump.json").encode(), "it")
    assert "".join(views.of_everything(dump, Wanted(), RECORDED_AT)) == recorded("all.txt")


def test_everything_as_a_document_is_the_dump_itself() -> None:
    text = recorded("config_dump.json")
    dump = config_dump.parse(text.encode(), "it")
    assert views.whole(dump, text.encode(), "json") == text + "\n"


def test_a_dump_in_protobufs_own_spelling_gives_the_same() -> None:
    dump = config_dump.parse(recorded("config_dump.json").encode(), "it")
    respelled = config_dump.Dump(documents.renamed(dump.content), "it")
    assert "".join(views.of_everything(respelled, Wanted(), RECORDED_AT)) == recorded("all.txt")


@pytest.mark.parametrize("pod", demo_dumps.PODS)
def test_what_was_recorded_of_the_local_mesh(pod: str) -> None:
    """Tables written by us, and read: names, kinds and destinations are what the stage's documents say."""
    found = demo_dumps.tables(*(demo_dumps.recorded(pod, name) for name in ("config_dump.json", "clusters.json")))
    assert found == {name: demo_dumps.recorded(pod, name) for name in found}


@pytest.mark.parametrize(
    "case", json.loads(recorded("order.json")), ids=lambda case: f"{len(case['keys'])}-{case['mode']}"
)
def test_rows_come_in_the_order_of_gos_sort(case: dict[str, object]) -> None:
    keys, is_partial = case["keys"], case["mode"] == "partial"
    assert isinstance(keys, list)

    def precedes(one: int, other: int) -> bool:
        """Of routes: names that are no port, here -1, precede nothing and are preceded by nothing."""
        return keys[one] < keys[other] and (not is_partial or -1 not in (keys[one], keys[other]))

    assert ordered(range(len(keys)), precedes) == case["order"]
