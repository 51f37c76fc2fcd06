"""A thread that goes into another network namespace takes its commands along, and comes back."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pilot_agent.interception.execute import Commands, inside
from tests.support.namespaces import missing, namespace

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def own() -> str:
    return os.readlink("/proc/thread-self/ns/net")


def test_inside_is_for_one_thread_and_its_commands() -> None:
    before = own()
    with namespace("inside") as made, ThreadPoolExecutor(1) as others:
        assert others.submit(own).result() == before  # the other thread is there from now on
        with inside(Path("/run/netns", made.name)):
            there = own()
            assert there != before
            assert Commands()(["readlink", "/proc/self/ns/net"]).output.strip() == there
            assert others.submit(own).result() == before
        assert own() == before
        with pytest.raises(FileNotFoundError), inside(Path("/run/netns", made.name)):
            raise FileNotFoundError  # what goes wrong inside is handed on as it is
        assert own() == before
