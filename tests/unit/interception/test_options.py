"""From flags, variables and the machine to a capture: precedence, derived values, and what is refused, by its flag."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from pilot_agent.errors import InterceptionError
from pilot_agent.interception.capture import Dns, Groups, Ranges
from pilot_agent.interception.options import Machine, Options, work_out
from tests.unit.interception.recordings import defaults

V4, V6, BOTH = ("10.9.0.2",), ("fd00::2",), ("10.9.0.2", "fd00::2")


def options(
    env: Mapping[str, str] | None = None,
    *,
    addresses: Sequence[str] = V4,
    servers: Sequence[str] = ("10.255.255.53",),
    **told: Any,
) -> Options:
    machine = Machine(["127.0.0.1", "::1", "fe80::1%eth0", *addresses], lambda: servers)
    return work_out(defaults(**told), set(told), env or {}, machine)


def refused(env: Mapping[str, str] | None = None, **told: Any) -> str:
    with pytest.raises(InterceptionError) as error:
        options(env, **told)
    assert error.value.exit_code == 1
    assert "\n" not in str(error.value)
    return str(error.value)


# Where values come from


def test_a_flag_wins_over_its_variable_and_a_variable_over_the_default() -> None:
    env = {"INBOUND_CAPTURE_PORT": "16006", "INBOUND_TUNNEL_PORT": "16008"}
    capture = options(env, inbound_capture_port="17006").capture
    assert (capture.inbound_port, capture.tunnel_port, capture.outbound_port) == ("17006", "16008", "15001")


def test_envoy_port_is_no_variable_of_a_flag() -> None:
    """An injected pod may have it for another purpose; Istio's tool shows it in its log only."""
    assert options({"ENVOY_PORT": "16001"}).capture.outbound_port == "15001"


@pytest.mark.parametrize(
    ("older", "newer", "attribute"),
    [
        ("REDIRECT_DNS", "ISTIO_META_DNS_CAPTURE", "redirect_dns"),
        ("DROP_INVALID", "INVALID_DROP", "drop_invalid"),
        ("DUAL_STACK", "ISTIO_DUAL_STACK", "dual_stack"),
    ],
)
def test_of_two_variables_istios_own_wins(older: str, newer: str, attribute: str) -> None:
    assert options({older: "true", newer: "false"}).values[attribute] is False
    assert options({older: "false", newer: "true"}).values[attribute] is True
    flags: dict[str, Any] = {attribute: False}
    assert options({newer: "true"}, **flags).values[attribute] is False


@pytest.mark.parametrize(
    ("name", "value"), [("REDIRECT_DNS", "banana"), ("PROBE_TIMEOUT", "5"), ("IPTABLES_PROBE_PORT", "70000")]
)
def test_a_variable_that_can_not_be_is_ignored_with_a_warning(name: str, value: str) -> None:
    (warning,) = options({name: value}).warnings
    assert warning.startswith(f"variable {name} is ignored: {value!r}")


def test_a_variable_that_is_empty_is_set() -> None:
    assert options({"INBOUND_TUNNEL_PORT": "15008", "ISTIO_INBOUND_PORTS": ""}, istio_inbound_ports="*").capture
    assert refused({"INBOUND_CAPTURE_PORT": ""}).startswith("--inbound-capture-port: ''")


# Derived values


def test_the_proxys_user_is_envoys_and_its_group_is_the_users_number() -> None:
    assert (options({"ENVOY_USER": "daemon"}).capture.uids, options({"ENVOY_USER": "daemon"}).capture.gids) == (
        ("1",),
        ("1",),
    )
    assert options({"ENVOY_USER": "nobody-knows-me"}).capture.uids == ("1337",)
    assert options(proxy_uid="5,6").capture.gids == ("5", "6")
    assert options({"PROXY_UID": "7", "PROXY_GID": "8"}).capture.gids == ("8",)


@pytest.mark.parametrize(
    ("addresses", "is_dual", "host", "has_ipv6"),
    [
        (V4, False, "10.9.0.2", False),
        (V6, False, "fd00::2", True),
        (BOTH, False, "10.9.0.2", False),
        (BOTH, True, "10.9.0.2", True),
        (V4, True, "10.9.0.2", False),
        (("fd00::2", "10.9.0.2"), False, "10.9.0.2", False),
        (("::6",), False, "::6", True),
        (("::ffff:10.9.0.2",), False, "10.9.0.2", False),
    ],
)
def test_ipv6_is_captured_where_there_is_no_ipv4_or_where_it_is_asked_for(
    addresses: Sequence[str], is_dual: bool, host: str, has_ipv6: bool
) -> None:
    found = options(addresses=addresses, dual_stack=is_dual)
    assert (found.host_ip, found.capture.has_ipv6) == (host, has_ipv6)


def test_without_an_address_there_is_nothing_to_capture() -> None:
    assert "no valid local IP address found" in refused(addresses=())
    assert "no valid local IP address found" in refused(addresses=("169.254.0.1", "224.0.0.1"))


def test_dns_servers_are_resolv_confs_but_for_all_of_them() -> None:
    servers = ("10.0.0.53", "fd00::53", "::ffff:9.9.9.9", "fe80::1%eth0", "name")
    assert options(servers=servers, redirect_dns=True).capture.dns == Dns(
        ("10.0.0.53", "9.9.9.9"), ("fd00::53", "fe80::1")
    )
    assert options(redirect_dns=True, capture_all_dns=True).capture.dns == Dns(is_all=True)
    assert options(redirect_dns=True, cni_mode=True).capture.dns == Dns(is_all=True), "a node's file says nothing"
    assert options(capture_all_dns=True).capture.dns is None


def test_without_dns_servers_dns_is_not_captured_and_that_is_told() -> None:
    found = options(servers=("name",), redirect_dns=True)
    assert found.capture.dns is None
    assert any("no DNS servers provided. DNS capture disabled." in warning for warning in found.warnings)


def test_lists_lose_their_spaces_and_empty_items() -> None:
    capture = options(istio_inbound_ports=" 80, 81,,", istio_service_cidr="10.0.0.0/8, fd00::/8").capture
    assert capture.inbound_ports == ("80", "81")
    assert capture.ranges == Ranges(("10.0.0.0/8",), ("fd00::/8",))


def test_marks_and_tables_may_be_hexadecimal() -> None:
    capture = options(istio_inbound_tproxy_mark="0x539", istio_inbound_tproxy_route_table="0x85").capture
    assert (capture.mark, capture.route_table) == ("1337", "133")


def test_owner_groups() -> None:
    name = "ISTIO_OUTBOUND_OWNER_GROUPS"
    assert options().capture.groups == Groups(None)
    assert options({f"{name}_EXCLUDE": "888,daemon"}).capture.groups == Groups(None, ("888", "daemon"))
    assert options({name: "root,202", f"{name}_EXCLUDE": "888"}).capture.groups == Groups(("root", "202"))
    assert options({name: ""}).capture.groups == Groups(())


# What is refused


@pytest.mark.parametrize(
    ("attribute", "value", "why"),
    [
        ("envoy_port", "65536", "above 65535"),
        ("inbound_capture_port", "x y", "no service of that name"),
        ("istio_inbound_ports", "80,http-nobody-knows", "'http-nobody-knows' is no port"),
        ("istio_inbound_ports", "*,80", "it stands alone"),
        ("istio_local_exclude_ports", "90:80", "no range of ports"),
        ("istio_local_exclude_ports", "0:65535", "that is every port"),
        ("istio_outbound_ports", "080", "write 80"),
        ("istio_outbound_ports", "1:2:3", "no range of ports"),
        ("istio_service_cidr", "10.0.0.1", "a length, such as /24 or /32, belongs behind it"),
        ("istio_service_cidr", "10.0.0.0/8,*", "it stands alone"),
        ("istio_service_cidr", "10.0.0.0/33", "10.0.0.0/33"),
        ("istio_service_exclude_cidr", "*", "would leave everything uncaptured"),
        ("istio_service_exclude_cidr", "-b", "a length"),
        ("istio_exclude_interfaces", "a-name-of-17-char", "at most 15 characters"),
        ("kube_virt_interfaces", "a/b", "no name of an interface"),
        ("proxy_uid", "nobody-knows-me", "there is no user 'nobody-knows-me'"),
        ("proxy_gid", "nobody-knows-us", "there is no group 'nobody-knows-us'"),
        ("istio_inbound_tproxy_mark", "mark", "it is no number"),
        ("istio_inbound_tproxy_mark", "0", "not between 1 and 4294967295"),
        ("istio_inbound_tproxy_route_table", str(2**32), "not between 1 and 4294967295"),
        ("force_iptables_binary", "foo", 'invalid FORCE_IPTABLES_BINARY value "foo"'),
    ],
)
def test_what_can_not_be_is_refused_with_its_flag(attribute: str, value: str, why: str) -> None:
    flags: dict[str, Any] = {attribute: value}
    text = refused(**flags)
    assert text.startswith(f"--{attribute.replace('_', '-')}: ")
    assert why in text


@pytest.mark.parametrize(
    ("cidr", "why"),
    [
        ("foo", "failed to parse CIDR foo"),
        ("127.0.0.1", "failed to parse CIDR 127.0.0.1"),
        ("10.0.0.1/8", "expected valid IPv4 loopback address in CIDR 10.0.0.1/8; found 10.0.0.1"),
        ("::1/128", "expected valid IPv4 loopback address in CIDR ::1/128; found ::1"),
        ("127.0.0.1/7", "expected CIDR 127.0.0.1/7 to have mask in range [8, 32]; found 7"),
    ],
)
def test_the_loopback_range_is_one(cidr: str, why: str) -> None:
    assert why in refused({"ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR": cidr})


def test_groups_have_a_limit_which_is_lower_for_iptables() -> None:
    name = "ISTIO_OUTBOUND_OWNER_GROUPS"
    many = ",".join(str(number) for number in range(65))
    assert "cannot exceed 64, got 65: [0 1 2" in refused({name: many})
    fifty = ",".join(str(number) for number in range(50))
    assert "takes at most 49" in refused({name: fifty})
    assert options({name: fifty}, native_nftables=True).capture.groups.included is not None
    assert refused({name: "nobody-knows-us"}) == f"{name}: there is no group 'nobody-knows-us'"


# What is probably a mistake


@pytest.mark.parametrize(
    ("told", "env", "addresses", "warning"),
    [
        ({}, {}, BOTH, "its IPv6 traffic is not captured: set --dual-stack"),
        ({"native_nftables": True}, {}, BOTH, "is captured without the rules that name addresses: set --dual-stack"),
        ({"istio_inbound_interception_mode": "Redirect"}, {}, V4, "'Redirect' is no mode: it is taken for REDIRECT"),
        (
            {"istio_inbound_ports": "80", "istio_local_exclude_ports": "81"},
            {},
            V4,
            "--istio-local-exclude-ports has no effect",
        ),
        (
            {"istio_outbound_ports": "80,81", "istio_local_outbound_ports_exclude": "81"},
            {},
            V4,
            "outbound ports 81 are both included and excluded",
        ),
        ({}, {"ISTIO_OUTBOUND_OWNER_GROUPS": ""}, V4, "no outbound traffic is captured at all"),
        (
            {"istio_inbound_interception_mode": "TPROXY", "istio_inbound_tproxy_mark": "5", "proxy_uid": "0"},
            {},
            V4,
            "Istio has Envoy set 1337",
        ),
        (
            {"istio_inbound_interception_mode": "TPROXY", "istio_inbound_ports": "*", "proxy_uid": "1337"},
            {},
            V4,
            "it must run as uid 0 with gid 1337",
        ),
    ],
)
def test_a_likely_mistake_is_a_warning(
    told: dict[str, Any], env: dict[str, str], addresses: Sequence[str], warning: str
) -> None:
    (only,) = options(env, addresses=addresses, **told).warnings
    assert warning in only


def test_what_the_injector_writes_is_no_mistake() -> None:
    told: dict[str, Any] = {
        "istio_inbound_interception_mode": "REDIRECT",
        "istio_service_cidr": "*",
        "istio_service_exclude_cidr": "",
        "istio_inbound_ports": "*",
        "istio_local_exclude_ports": "15090,15021,15020",
        "proxy_uid": "1337",
    }
    assert options(**told).warnings == ()
