"""Values as iptables-save says them, whatever they were told as (each line measured with iptables 1.8.9)."""

import pytest

from pilot_agent.interception.canonical import canonical
from pilot_agent.interception.rules import Condition, Kind, Rule, Verdict, saved

TCP = Condition("protocol", "tcp")


@pytest.mark.parametrize(
    ("kind", "told", "said"),
    [
        ("destination", "172.16.5.1/16", "-A OUTPUT -d 172.16.0.0/16 -p tcp -j RETURN"),
        ("destination", "0.0.0.0/0", "-A OUTPUT -p tcp -j RETURN"),
        ("destination", "10.1.2.3/0", "-A OUTPUT -p tcp -j RETURN"),
        ("destination", "::/0", "-A OUTPUT -p tcp -j RETURN"),
        ("port", "https", "-A OUTPUT -p tcp -m tcp --dport 443 -j RETURN"),
        ("port", "7:7", "-A OUTPUT -p tcp -m tcp --dport 7 -j RETURN"),
        ("port", "7:http", "-A OUTPUT -p tcp -m tcp --dport 7:80 -j RETURN"),
        ("ports", "53,https", "-A OUTPUT -p tcp -m multiport --dports 53,443 -j RETURN"),
        ("uid", "root", "-A OUTPUT -p tcp -m owner --uid-owner 0 -j RETURN"),
        ("gid", "root", "-A OUTPUT -p tcp -m owner --gid-owner 0 -j RETURN"),
    ],
)
def test_a_condition(kind: Kind, told: str, said: str) -> None:
    [rule] = canonical([Rule("nat", "OUTPUT", (TCP, Condition(kind, told)), Verdict("return"))])
    assert saved(rule, 4) == said


def test_the_port_of_a_redirect() -> None:
    [rule] = canonical([Rule("nat", "OUTPUT", (TCP,), Verdict("redirect", "http"))])
    assert saved(rule, 4) == "-A OUTPUT -p tcp -j REDIRECT --to-ports 80"
