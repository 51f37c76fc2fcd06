"""From flags, variables and the machine to a capture: derived values, early checks that name the flag, warnings.

Pure but for `Machine`, which tells addresses, name servers and users (reference iptables.md, sections 2 to 4).
"""

import ipaddress
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from pilot_agent.errors import InterceptionError
from pilot_agent.interception.canonical import group_id, port_number, user_id
from pilot_agent.interception.capture import ALL, Capture, Dns, Groups, Ranges
from pilot_agent.interception.settings import SETTINGS, VARIABLES, Setting
from pilot_agent.values import Duration, parse_bool

MOST_GROUPS = 64
MOST_GROUPS_OF_IPTABLES = 49
"""What fits into the 255 arguments of one rule (measured with iptables 1.8.9, both back ends)."""
LONGEST_INTERFACE = 15
REDIRECT_MODES = ("", "REDIRECT", "NONE")
_LOOPBACK, _GROUPS, _EXCLUDED_GROUPS = (VARIABLES[index][0] for index in range(3))


class Machine(NamedTuple):
    """`addresses`: every address of every interface, the kernel's order. `name_servers` raises InterceptionError."""

    addresses: Sequence[str]
    name_servers: Callable[[], Sequence[str]]


class Options(NamedTuple):
    """`values` by attribute of the setting, the machine's defaults filled in. `host_ip` is the pod's first address."""

    capture: Capture
    values: Mapping[str, Any]
    host_ip: str
    dry_run_file: str
    warnings: tuple[str, ...]


def work_out(
    told: Mapping[str, Any], given: Collection[str], variables: Mapping[str, str], machine: Machine
) -> Options:
    """`told`: values of the flags, defaults included; `given`: attributes of those that were written.

    Raises InterceptionError with one line for what can't be.
    """
    warnings: list[str] = []
    values = dict(told)
    for setting in SETTINGS:
        if setting.attribute not in given:
            values[setting.attribute] = _of_variables(setting, told[setting.attribute], variables, warnings)
    for setting in SETTINGS:
        value = values[setting.attribute]
        if setting.choices and value not in setting.choices:
            known = ", ".join(filter(None, setting.choices))
            raise InterceptionError(f'--{setting.name}: invalid {setting.variables[0]} value "{value}": use {known}')
    reader = _Reader(values, variables, machine, warnings)
    capture = reader.capture()
    warn(capture, values, machine, warnings)
    return Options(capture, values, reader.host_ip, variables.get("DRY_RUN_FILE_PATH", ""), tuple(warnings))


def _of_variables(setting: Setting, default: Any, variables: Mapping[str, str], warnings: list[str]) -> Any:
    value = default
    for name in setting.variables:
        text = variables.get(name)
        if text is None:
            continue
        try:
            value = _parsed(setting, text)
        except ValueError as error:
            # Istio's tool says nothing: the pod then runs without what was asked for.
            warnings.append(f"variable {name} is ignored: {error}")
    return value


def _parsed(setting: Setting, text: str) -> Any:
    if isinstance(setting.default, bool):
        return parse_bool(text)
    if isinstance(setting.default, Duration):
        return Duration.parse(text)
    if isinstance(setting.default, int):
        if not text.isdecimal() or int(text) > 65535:
            raise ValueError(f"{text!r} is no port")
        return int(text)
    return text


class _Reader:
    """Reads the values into a capture; an error names the flag."""

    def __init__(
        self, values: dict[str, Any], variables: Mapping[str, str], machine: Machine, warnings: list[str]
    ) -> None:
        self._values, self._variables, self._machine, self._warnings = values, variables, machine, warnings
        self.host_ip, self._has_ipv6 = _host(machine.addresses, is_dual_stack=values["dual_stack"])

    def capture(self) -> Capture:
        values = self._values
        values["proxy_uid"] = values["proxy_uid"] or self._default_uid()
        values["proxy_gid"] = values["proxy_gid"] or values["proxy_uid"]
        inbound = self._ports("istio_inbound_ports", or_all=True)
        return Capture(
            outbound_port=self._port("envoy_port"),
            inbound_port=self._port("inbound_capture_port"),
            tunnel_port=self._port("inbound_tunnel_port"),
            uids=self._owners("proxy_uid", user_id),
            gids=self._owners("proxy_gid", group_id),
            is_tproxy=values["istio_inbound_interception_mode"] == "TPROXY",
            mark=self._number("istio_inbound_tproxy_mark"),
            route_table=self._number("istio_inbound_tproxy_route_table"),
            inbound_ports=inbound,
            excluded_inbound_ports=self._ports("istio_local_exclude_ports"),
            outbound_ports=self._ports("istio_outbound_ports"),
            excluded_outbound_ports=self._ports("istio_local_outbound_ports_exclude"),
            ranges=self._ranges("istio_service_cidr", or_all=True),
            excluded_ranges=self._ranges("istio_service_exclude_cidr"),
            excluded_interfaces=self._interfaces("istio_exclude_interfaces"),
            virtual_interfaces=self._interfaces("kube_virt_interfaces"),
            groups=self._owner_groups(),
            loopback=self._loopback(),
            dns=self._dns(),
            drops_invalid=values["drop_invalid"],
            has_ipv6=self._has_ipv6,
        )

    def _default_uid(self) -> str:
        try:
            return str(user_id(self._variables.get("ENVOY_USER", "istio-proxy")))
        except ValueError:
            return "1337"

    def _items(self, attribute: str) -> tuple[str, ...]:
        """Without the spaces around them: iptables would take an item with one for two words."""
        return tuple(item for each in self._values[attribute].split(",") if (item := each.strip()))

    def _port(self, attribute: str) -> str:
        text: str = self._values[attribute].strip()
        self._check(attribute, text, lambda: port_number(text))
        return text

    def _ports(self, attribute: str, *, or_all: bool = False) -> tuple[str, ...]:
        items = self._items(attribute)
        if or_all and ALL in items:
            if items != (ALL,):
                raise _refusal(attribute, ",".join(items), "* is all of them: it stands alone")
            return items
        for item in items:
            self._check(attribute, item, lambda item=item: _check_ports(item))  # type: ignore[misc]
        return items

    def _owners(self, attribute: str, number: Callable[[str], int]) -> tuple[str, ...]:
        items = self._items(attribute)
        for item in items:
            self._check(attribute, item, lambda item=item: number(item))  # type: ignore[misc]
        return items

    def _interfaces(self, attribute: str) -> tuple[str, ...]:
        for item in self._items(attribute):
            if len(item) > LONGEST_INTERFACE:
                raise _refusal(attribute, item, f"a name of an interface has at most {LONGEST_INTERFACE} characters")
            if "/" in item or any(each.isspace() for each in item):
                raise _refusal(attribute, item, "it is no name of an interface")
        return self._items(attribute)

    def _ranges(self, attribute: str, *, or_all: bool = False) -> Ranges:
        items = self._items(attribute)
        if ALL in items:
            if or_all and items == (ALL,):
                return Ranges(is_all=True)
            why = "* is all of them: it stands alone" if or_all else "* would leave everything uncaptured"
            raise _refusal(attribute, ",".join(items), why)
        for item in items:
            if "/" not in item:
                raise _refusal(attribute, item, "it is no range: a length, such as /24 or /32, belongs behind it")
            self._check(attribute, item, lambda item=item: ipaddress.ip_network(item, strict=False))  # type: ignore[misc]
        return Ranges(
            tuple(each for each in items if ":" not in each), tuple(each for each in items if ":" in each), False
        )

    def _number(self, attribute: str) -> str:
        """A mark or a table, of 32 bits; `ip rule` wants it decimal, and a person may write 0x539."""
        text: str = self._values[attribute].strip()
        try:
            number = int(text, 0) if text[:2].lower() == "0x" else int(text)
        except ValueError:
            raise _refusal(attribute, text, "it is no number") from None
        if not 0 < number < 2**32:
            raise _refusal(attribute, text, "it is not between 1 and 4294967295")
        return str(number)

    def _owner_groups(self) -> Groups:
        included, excluded = (
            tuple(item for each in self._variables.get(name, default).split(",") if (item := each.strip()))
            for name, default in ((_GROUPS, ALL), (_EXCLUDED_GROUPS, ""))
        )
        if len(included) > MOST_GROUPS:
            raise InterceptionError(
                "number of owner groups whose outgoing traffic should be redirected to Envoy cannot exceed "
                f"{MOST_GROUPS}, got {len(included)}: [{' '.join(included)}]"
            )
        most = MOST_GROUPS if self._values["native_nftables"] else MOST_GROUPS_OF_IPTABLES
        if included != (ALL,) and len(included) > most:
            raise InterceptionError(
                f"{_GROUPS} names {len(included)} groups, and a rule of iptables takes at most {most}: use fewer, or "
                "--native-nftables"
            )
        for name, groups in ((_GROUPS, () if included == (ALL,) else included), (_EXCLUDED_GROUPS, excluded)):
            for group in groups:
                try:
                    group_id(group)
                except ValueError as error:
                    raise InterceptionError(f"{name}: {error}") from None
        return Groups(None, excluded) if included == (ALL,) else Groups(included)

    def _loopback(self) -> str:
        text = self._variables.get(_LOOPBACK, "127.0.0.1/32")
        address, slash, length = text.partition("/")
        try:
            network, parsed = ipaddress.ip_network(text, strict=False), ipaddress.ip_address(address)
        except ValueError:
            raise InterceptionError(f"{_LOOPBACK}: failed to parse CIDR {text}") from None
        if not slash:
            raise InterceptionError(f"{_LOOPBACK}: failed to parse CIDR {text}")
        if network.version != 4 or not parsed.is_loopback:
            raise InterceptionError(f"{_LOOPBACK}: expected valid IPv4 loopback address in CIDR {text}; found {parsed}")
        if not 8 <= network.prefixlen <= 32:
            raise InterceptionError(f"{_LOOPBACK}: expected CIDR {text} to have mask in range [8, 32]; found {length}")
        return text

    def _dns(self) -> Dns | None:
        if not self._values["redirect_dns"]:
            return None
        # A CNI plug-in runs on the node, whose resolv.conf says nothing of the pod's.
        if self._values["capture_all_dns"] or self._values["cni_mode"]:
            return Dns(is_all=True)
        v4: list[str] = []
        v6: list[str] = []
        for server in self._machine.name_servers():
            address = _address(server.partition("%")[0])
            if address is not None:
                (v4 if address.version == 4 else v6).append(str(address))
        if not (v4 or v6):
            self._warnings.append(
                "REDIRECT_DNS is set, but CAPTURE_ALL_DNS is false, and no DNS servers provided. DNS capture disabled."
            )
            return None
        return Dns(tuple(v4), tuple(v6))

    def _check(self, attribute: str, item: str, check: Callable[[], object]) -> None:
        try:
            check()
        except ValueError as error:
            raise _refusal(attribute, item, str(error)) from None


def _refusal(attribute: str, value: str, why: str) -> InterceptionError:
    return InterceptionError(f"--{attribute.replace('_', '-')}: {value!r}: {why}")


def _check_ports(text: str) -> None:
    """A port, a service, or a range `from:to`. Raises ValueError."""
    numbers = [port_number(each) for each in text.split(":")]
    if len(numbers) > 2 or numbers != sorted(numbers):
        raise ValueError("it is no range of ports: write FROM:TO")
    if numbers == [0, 65535]:
        raise ValueError("that is every port, which iptables takes for none said")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (address.version == 6 and address.ipv4_mapped) or address


def _host(addresses: Sequence[str], *, is_dual_stack: bool) -> tuple[str, bool]:
    """The pod's first address, and whether there are rules for IPv6. Raises InterceptionError without an address."""
    found = [address for each in addresses if (address := _address(each.partition("%")[0])) is not None]
    usable = [each for each in found if not (each.is_loopback or each.is_link_local or _is_link_multicast(each))]
    ordered = sorted(usable, key=lambda each: each.version)  # the kernel lists all of IPv4 first
    if not ordered:
        raise InterceptionError("no valid local IP address found: give an interface one that is not link-local")
    has_ipv6 = any(each.version == 6 for each in usable) if is_dual_stack else ordered[0].version == 6
    return str(ordered[0]), has_ipv6


def _is_link_multicast(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    network = "224.0.0.0/24" if address.version == 4 else "ff02::/16"
    return address in ipaddress.ip_network(network)


def warn(capture: Capture, values: Mapping[str, Any], machine: Machine, warnings: list[str]) -> None:
    """What is allowed, and probably a mistake."""
    mode = values["istio_inbound_interception_mode"]
    if mode not in (*REDIRECT_MODES, "TPROXY"):
        warnings.append(f"--istio-inbound-interception-mode {mode!r} is no mode: it is taken for REDIRECT")
    if not capture.has_ipv6 and any(
        (address := _address(each.partition("%")[0])) is not None
        and address.version == 6
        and not (address.is_loopback or address.is_link_local or address.is_multicast)
        and str(address) != "::6"
        for each in machine.addresses
    ):
        # nft's tables are both families': a rule that names no address is IPv6's as well (measured).
        is_half = values["native_nftables"]
        what = "is captured without the rules that name addresses" if is_half else "is not captured"
        warnings.append(f"this pod has IPv6 addresses, and its IPv6 traffic {what}: set --dual-stack")
    if capture.excluded_inbound_ports and capture.inbound_ports not in ((), (ALL,)):
        warnings.append("--istio-local-exclude-ports has no effect: --istio-inbound-ports is a list already")
    both = set(capture.outbound_ports) & set(capture.excluded_outbound_ports)
    if both:
        warnings.append(f"outbound ports {', '.join(sorted(both))} are both included and excluded: they are excluded")
    if capture.groups.included == ():
        warnings.append(f"{_GROUPS} is empty: no outbound traffic is captured at all")
    if capture.is_tproxy and capture.mark != "1337":
        warnings.append(
            f"--istio-inbound-tproxy-mark {capture.mark}: Istio has Envoy set 1337, which no rule will know"
        )
    if capture.is_tproxy and "1337" in capture.uids and capture.inbound_ports:
        warnings.append(
            "TPROXY and a proxy of uid 1337: it must run as uid 0 with gid 1337, or its connections to the application "
            "are sent back to it"
        )
