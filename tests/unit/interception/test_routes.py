"""What the kernel refuses, in words for a person; tests/netns has the real one."""

import errno
from typing import Self

import pytest

from pilot_agent.errors import InterceptionError
from pilot_agent.interception import routes
from pilot_agent.interception.netlink import Attributes, Kind, Message
from pilot_agent.interception.route_plan import Lookup, Step, There, Wanted

RULE, ROUTE, ADDRESS = (
    Step("add", "rule", 4, 1337, 133),
    Step("add", "route", 4, table=133),
    Step("add", "address", 6),
)
GONE = Step("remove", "rule", 6, 1337, 133, 32765)


class Kernel:
    """Answers every message with one error."""

    def __init__(self, code: int) -> None:
        self._code = code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def dump(self, kind: Kind, body: tuple[int, ...], attributes: Attributes | None = None) -> list[Message]:
        raise OSError(self._code, "")

    def add(self, kind: Kind, body: tuple[int, ...], attributes: Attributes) -> None:
        raise OSError(self._code, "")

    delete = add


def answers(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(routes, "Netlink", lambda: Kernel(code))


REFUSALS = [
    (
        RULE,
        errno.EPERM,
        "ip rule add fwmark 1337 lookup 133: Operation not permitted: this takes root and the capability NET_ADMIN",
    ),
    (
        ADDRESS,
        errno.EACCES,
        "ip -6 addr add ::6/128 dev lo: Permission denied: IPv6 is off on lo: net.ipv6.conf.lo.disable_ipv6 must be 0",
    ),
    (
        ROUTE,
        errno.ENETDOWN,
        "ip route add local default dev lo table 133: Network is down: lo is down: it must be up",
    ),
    (
        ROUTE,
        errno.EEXIST,
        "ip route add local default dev lo table 133: File exists: the table has another default route: "
        "use one of your own",
    ),
    (
        GONE,
        errno.EPERM,
        "ip -6 rule del fwmark 1337 lookup 133 priority 32765: Operation not permitted: "
        "this takes root and the capability NET_ADMIN",
    ),
    (RULE, errno.EBUSY, "ip rule add fwmark 1337 lookup 133: Device or resource busy"),
]


@pytest.mark.parametrize(("step", "code", "message"), REFUSALS)
def test_refusals(monkeypatch: pytest.MonkeyPatch, step: Step, code: int, message: str) -> None:
    answers(monkeypatch, code)
    with pytest.raises(InterceptionError) as caught:
        routes.make([step])
    assert str(caught.value) == f"failed to configure routes: {message}"


@pytest.mark.parametrize(
    ("step", "code"),
    [(RULE, errno.EEXIST), (ADDRESS, errno.EEXIST), (GONE, errno.ENOENT), (GONE, errno.ESRCH)],
)
def test_what_somebody_else_has_done_meanwhile_is_done(monkeypatch: pytest.MonkeyPatch, step: Step, code: int) -> None:
    answers(monkeypatch, code)
    routes.make([step])


def test_without_steps_the_kernel_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_socket() -> Kernel:
        raise AssertionError

    monkeypatch.setattr(routes, "Netlink", no_socket)
    routes.make([])


def test_a_kernel_without_policy_routing_has_no_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain(Kernel):
        def dump(self, kind: Kind, body: tuple[int, ...], attributes: Attributes | None = None) -> list[Message]:
            return [] if kind.name == "address" else super().dump(kind, body, attributes)

    monkeypatch.setattr(routes, "Netlink", lambda: Plain(errno.EOPNOTSUPP))
    there = routes.read(Wanted((Lookup(4, 1337, 133),)))
    assert (there.lookups, there.used, there.has_passthrough) == ((), frozenset(), False)
    assert There().tables == {}


def test_a_kernel_that_can_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_socket() -> Kernel:
        raise OSError(errno.EPROTONOSUPPORT, "Protocol not supported")

    monkeypatch.setattr(routes, "Netlink", no_socket)
    with pytest.raises(InterceptionError) as caught:
        routes.apply(Wanted())
    assert str(caught.value) == "failed to read rules and routes from the kernel: Protocol not supported"
