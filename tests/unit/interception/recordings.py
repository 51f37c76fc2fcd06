"""Recordings of Istio's own tool: 36 sets of flags, and what became of them (tests/golden/iptables)."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pilot_agent.interception.options import Machine, Options, work_out
from pilot_agent.interception.settings import SETTINGS
from pilot_agent.values import parse_bool

FILE = Path(__file__).parents[2] / "golden" / "iptables" / "recordings.json"
NAME_SERVERS = ("10.255.255.53",)
LOOPBACK = ("127.0.0.1", "::1")


class Recording(NamedTuple):
    """`addresses` of the pod with their lengths; `saved` by family and table; `nft` the native script."""

    name: str
    addresses: list[str]
    args: list[str]
    env: dict[str, str]
    restore_input: list[list[str]]
    saved: dict[int, dict[str, list[str]]]
    nft: list[str]
    ip_rules: dict[int, list[str]]
    lo_v6: list[str]

    def machine(self) -> Machine:
        addresses = [*LOOPBACK, *(each.partition("/")[0] for each in self.addresses)]
        return Machine(addresses, lambda: NAME_SERVERS)

    def options(self, **more: Any) -> Options:
        values, given = read_args(self.args)
        return work_out(values | more, {*given, *more}, self.env, self.machine())


@cache
def recordings() -> list[Recording]:
    return [
        Recording(
            each["name"],
            each["addresses"],
            each["args"] or [],
            each["env"],
            each["restore_input"],
            {4: each["iptables_save"], 6: each["ip6tables_save"]},
            each["native_nft"]["script"],
            {4: each["ip_rule"], 6: each["ip6_rule"]},
            each["lo_v6"],
        )
        for each in json.loads(FILE.read_text())["cases"]
    ]


def recording(name: str) -> Recording:
    return next(each for each in recordings() if each.name == name)


def read_args(args: list[str]) -> tuple[dict[str, Any], set[str]]:
    """Values by attribute, and which were given; the command line itself is tested elsewhere."""
    values: dict[str, Any] = {each.attribute: each.default for each in SETTINGS}
    given = set()
    rest = list(args)
    while rest:
        word = rest.pop(0)
        setting = next(each for each in SETTINGS if word in (f"-{each.short}", f"--{each.name}"))
        is_switch = isinstance(setting.default, bool)
        values[setting.attribute] = parse_bool("true") if is_switch else rest.pop(0)
        given.add(setting.attribute)
    return values, given


def defaults(**more: Any) -> Mapping[str, Any]:
    return {each.attribute: each.default for each in SETTINGS} | more
