"""The kernel's rules, routes and addresses of a capture: read, and made what `route_plan` wants.

In the network namespace of the thread that calls. `netlink` speaks with the kernel; `commands` calls this after the
rules of iptables or nft are made, and after a cleanup of them.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterable, Sequence

from pilot_agent.errors import InterceptionError
from pilot_agent.interception.netlink import ADDRESS, LOOPBACK_INDEX, ROUTE, RULE, Attributes, Kind, Message, Netlink
from pilot_agent.interception.route_plan import FAMILIES, PASSTHROUGH, Content, Lookup, Step, There, Wanted, plan


def apply(what: Wanted) -> tuple[Step, ...]:
    """Do what is missing; what was done. Raises InterceptionError, and then a part may be done."""
    steps = plan(what, read(what))
    make(steps)
    return steps


# What is there

_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
_FAMILY = {int(number): family for family, number in _AF.items()}
_TO_TABLE, _LOCAL, _CLONED = 1, 2, 0x200  # FR_ACT_TO_TBL, RTN_LOCAL, RTM_F_CLONED
_ALL_BITS = 0xFFFFFFFF
_BOOT, _HOST = 3, 254  # RTPROT_BOOT, RT_SCOPE_HOST: as `ip route` says


class _Rule:  # FRA_*
    PRIORITY, MARK, SUPPRESS_LENGTH, TABLE, MASK, PROTOCOL = 6, 10, 14, 15, 16, 21


class _Route:  # RTA_*
    DEVICE, GATEWAY, MULTIPATH, TABLE = 4, 5, 9, 15


_LOCAL_ADDRESS, _ADDRESS = 2, 1  # IFA_*
_OF_A_PLAIN_LOOKUP = {
    _Rule.PRIORITY,
    _Rule.MARK,
    _Rule.MASK,
    _Rule.SUPPRESS_LENGTH,
    _Rule.TABLE,
    _Rule.PROTOCOL,
}


def read(what: Wanted) -> There:
    """What this thread's network namespace has. Raises InterceptionError."""
    try:
        with Netlink() as kernel:
            return _read(kernel, what)
    except OSError as error:
        raise InterceptionError(f"failed to read rules and routes from the kernel: {error.strerror}") from None


def _read(kernel: Netlink, what: Wanted) -> There:
    lookups: list[tuple[Lookup, int]] = []
    used: set[tuple[int, int]] = set()
    for family in FAMILIES:
        for message in _rules(kernel, family):
            found = _lookup(family, message)
            if found:
                lookups.append(found)
            else:
                used.add((family, message.number(_Rule.TABLE) or message.body[4]))
    tables = {(lookup.family, lookup.table) for lookup, _ in lookups}
    tables |= {(family, what.told[1]) for family in FAMILIES}
    contents = {each: _content(kernel, *each) for each in sorted(tables)}
    return There(tuple(lookups), frozenset(used), contents, _has_passthrough(kernel))


def _rules(kernel: Netlink, family: int) -> Iterable[Message]:
    try:
        found = kernel.dump(RULE, (_AF[family], 0, 0, 0, 0, 0, 0, 0, 0))
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EAFNOSUPPORT):
            return []  # a kernel without policy routing, or without this family, has no rules
        raise
    return [message for message in found if _FAMILY.get(message.body[0]) == family]


def _lookup(family: int, message: Message) -> tuple[Lookup, int] | None:
    """None for a rule that has another condition than a mark, or does something else."""
    _, to_length, from_length, tos, table, _, _, action, flags = message.body
    if (to_length, from_length, tos, action, flags) != (0, 0, 0, _TO_TABLE, 0):
        return None
    number = message.number
    if message.attributes.keys() - _OF_A_PLAIN_LOOKUP or number(_Rule.MASK) != _ALL_BITS:
        return None
    if number(_Rule.SUPPRESS_LENGTH) not in (None, _ALL_BITS):
        return None
    mark = number(_Rule.MARK)
    if not mark:
        return None  # "no mark" is nobody's of ours
    return Lookup(family, mark, number(_Rule.TABLE) or table), number(_Rule.PRIORITY) or 0


def _content(kernel: Netlink, family: int, table: int) -> Content:
    try:
        found = kernel.dump(ROUTE, (_AF[family], 0, 0, 0, 0, 0, 0, 0, 0), {_Route.TABLE: _number(table)})
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EOPNOTSUPP, errno.EAFNOSUPPORT):
            return Content()  # there is no such table
        raise
    ours = [
        _is_our_route(message)
        for message in found
        if _FAMILY.get(message.body[0]) == family
        and (message.number(_Route.TABLE) or message.body[4]) == table
        and not message.body[8] & _CLONED
    ]
    return Content(any(ours), ours.count(False))


def _is_our_route(message: Message) -> bool:
    _, to_length, from_length, tos, _, _, _, kind, _ = message.body
    is_direct = not message.attributes.keys() & {_Route.GATEWAY, _Route.MULTIPATH}
    is_local_default = (to_length, from_length, tos, kind) == (0, 0, 0, _LOCAL)
    return is_local_default and is_direct and message.number(_Route.DEVICE) == LOOPBACK_INDEX


def _has_passthrough(kernel: Netlink) -> bool:
    wanted_address = socket.inet_pton(socket.AF_INET6, PASSTHROUGH)
    return any(
        (message.body[0], message.body[4]) == (_AF[6], LOOPBACK_INDEX)
        and message.attributes.get(_LOCAL_ADDRESS, message.attributes.get(_ADDRESS)) == wanted_address
        for message in kernel.dump(ADDRESS, (_AF[6], 0, 0, 0, LOOPBACK_INDEX))
    )


def _number(value: int) -> bytes:
    return struct.pack("=I", value)


# How it is done

_GONE = (errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENODEV)
_HINTS = {
    errno.EPERM: "this takes root and the capability NET_ADMIN",
    errno.EACCES: "IPv6 is off on lo: net.ipv6.conf.lo.disable_ipv6 must be 0",
    errno.EAFNOSUPPORT: "this kernel lacks the family, or policy routing",
    errno.EOPNOTSUPP: "this kernel lacks the family, or policy routing",
    errno.ENETDOWN: "lo is down: it must be up",
    errno.ENETUNREACH: "lo is down: it must be up",
    errno.ENODEV: "lo is down, or has no IPv6",
    errno.EEXIST: "the table has another default route: use one of your own",
}


def make(steps: Sequence[Step]) -> None:
    """Do the steps. Raises InterceptionError at the first that can't be done."""
    if not steps:
        return
    with Netlink() as kernel:
        for step in steps:
            _make(kernel, step)


def _make(kernel: Netlink, step: Step) -> None:
    kind, body, attributes = _message(step)
    try:
        if step.verb == "add":
            kernel.add(kind, body, attributes)
        else:
            kernel.delete(kind, body, attributes)
    except OSError as error:
        # Somebody else was as quick. Not so with a route: what exists there is another one, or it would not be added.
        is_there = step.verb == "add" and step.what != "route" and error.errno == errno.EEXIST
        is_gone = step.verb == "remove" and error.errno in _GONE
        if not (is_there or is_gone):
            code = error.errno or 0
            hint = f": {_HINTS[code]}" if code in _HINTS else ""
            message = f"failed to configure routes: {step.text}: {os.strerror(code)}{hint}"
            raise InterceptionError(message) from None


def _message(step: Step) -> tuple[Kind, tuple[int, ...], Attributes]:
    family = _AF[step.family]
    match step.what:
        case "rule":
            attributes = {
                _Rule.MARK: _number(step.mark),
                _Rule.MASK: _number(_ALL_BITS),
                _Rule.TABLE: _number(step.table),
            }
            if step.priority:
                attributes[_Rule.PRIORITY] = _number(step.priority)
            return RULE, (family, 0, 0, 0, 0, 0, 0, _TO_TABLE, 0), attributes
        case "route":
            attributes = {_Route.TABLE: _number(step.table), _Route.DEVICE: _number(LOOPBACK_INDEX)}
            return ROUTE, (family, 0, 0, 0, 0, _BOOT, _HOST, _LOCAL, 0), attributes
        case "address":
            address = socket.inet_pton(socket.AF_INET6, PASSTHROUGH)
            return ADDRESS, (family, 128, 0, 0, LOOPBACK_INDEX), {_LOCAL_ADDRESS: address, _ADDRESS: address}
