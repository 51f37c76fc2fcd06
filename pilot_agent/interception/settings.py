"""Flags and variables of istio-iptables as data: names, defaults, effects (reference iptables.md, section 2).

`commands` makes the command line of it, `options` reads the variables by it.
"""

from typing import Any, NamedTuple

from pilot_agent.values import Duration

NFT, LEGACY = "nft", "legacy"


class Setting(NamedTuple):
    """`--name`, `-short`. `variables` set it where the flag is not given, the last that is set wins.

    The type is that of `default`: text, bool, int or Duration. `effect` is for the help.
    """

    name: str
    short: str
    default: Any
    effect: str
    variables: tuple[str, ...] = ()
    metavar: str = ""
    choices: tuple[str, ...] = ()

    @property
    def attribute(self) -> str:
        return self.name.replace("-", "_")


def _setting(name: str, short: str, default: Any, effect: str, *more: str, **rest: Any) -> Setting:
    """With the variable that Istio's rule gives it, and `more` of them."""
    return Setting(name, short, default, effect, (name.upper().replace("-", "_"), *more), **rest)


LIST, CIDRS = "a,b,...", "CIDR,..."

SETTINGS = (
    # Istio's tool shows ENVOY_PORT in its log and does not use it: an injected pod may have it for another purpose.
    Setting("envoy-port", "p", "15001", "Port that outbound connections are redirected to", metavar="PORT"),
    _setting("inbound-capture-port", "z", "15006", "Port that inbound connections are redirected to", metavar="PORT"),
    _setting("inbound-tunnel-port", "e", "15008", "Port of tunnelled (HBONE) connections, never redirected"),
    _setting(
        "proxy-uid",
        "u",
        "",
        "User of the proxy, whose own traffic is not captured; several with commas (default the user $ENVOY_USER or "
        "istio-proxy, else 1337)",
        metavar=LIST,
    ),
    _setting("proxy-gid", "g", "", "Group of the proxy; several with commas (default as --proxy-uid)", metavar=LIST),
    _setting(
        "istio-inbound-interception-mode",
        "m",
        "",
        "REDIRECT, or TPROXY, which keeps the client's address; anything else is REDIRECT",
        metavar="MODE",
    ),
    _setting("istio-inbound-ports", "b", "", "Inbound ports to capture, * for all; empty for none", metavar=LIST),
    _setting("istio-local-exclude-ports", "d", "", "Inbound ports not to capture, of all (-b '*')", metavar=LIST),
    _setting("istio-exclude-interfaces", "c", "", "Interfaces whose traffic is left alone", metavar=LIST),
    _setting("istio-service-cidr", "i", "", "Outbound ranges to capture, * for all; empty for none", metavar=CIDRS),
    _setting("istio-service-exclude-cidr", "x", "", "Outbound ranges not to capture", metavar=CIDRS),
    _setting("istio-outbound-ports", "q", "", "Outbound ports to capture wherever they lead", metavar=LIST),
    _setting("istio-local-outbound-ports-exclude", "o", "", "Outbound ports not to capture", metavar=LIST),
    _setting("kube-virt-interfaces", "k", "", "Interfaces of virtual machines: what comes in there is outbound"),
    _setting("istio-inbound-tproxy-mark", "t", "1337", "Mark of TPROXY's packets", metavar="MARK"),
    _setting("istio-inbound-tproxy-route-table", "r", "133", "Routing table of TPROXY's packets", metavar="TABLE"),
    _setting("dry-run", "n", False, "Change nothing: show the rules"),
    _setting("iptables-probe-port", "", 15002, "Port that the validation connects to"),
    _setting("probe-timeout", "", Duration(5 * 10**9), "How long the validation may take"),
    _setting("skip-rule-apply", "", False, "Make no rules (for --run-validation alone)"),
    _setting("run-validation", "", False, "Make a connection and see that it is captured; exit code 126 if not"),
    _setting("cleanup-only", "", False, "Take away every rule, route and address of earlier runs"),
    _setting("reconcile", "", False, "As always here: earlier rules are brought to the wanted ones"),
    _setting("force-apply", "", False, "Write the rules though they are there already"),
    _setting("redirect-dns", "", False, "Capture DNS for the agent's DNS proxy", "ISTIO_META_DNS_CAPTURE"),
    _setting("capture-all-dns", "", False, "Capture DNS to every server, not only those of /etc/resolv.conf"),
    _setting("drop-invalid", "", False, "Drop packets that conntrack calls invalid", "INVALID_DROP"),
    _setting("dual-stack", "", False, "Capture IPv6 too where the pod has both families", "ISTIO_DUAL_STACK"),
    _setting("network-namespace", "", "", "Work in this network namespace: a path, a name or a pid", metavar="NETNS"),
    _setting("cni-mode", "", False, "Called by a CNI plug-in: nsswitch.conf and lock are the pod's own"),
    _setting("native-nftables", "", False, "Make nftables rules instead of iptables'"),
    _setting(
        "force-iptables-binary",
        "",
        "",
        "Use this back end of iptables (default the one that has rules already, else nft)",
        choices=("", LEGACY, NFT),
    ),
)

VARIABLES = (
    ("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", "127.0.0.1/32", "what counts as the pod itself, in 127.0.0.0/8"),
    ("ISTIO_OUTBOUND_OWNER_GROUPS", "*", "groups whose traffic is captured"),
    ("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", "", "groups whose traffic is not captured, where all others' is"),
    ("DRY_RUN_FILE_PATH", "", "where a dry run writes what it would have given to iptables"),
    ("ENVOY_USER", "istio-proxy", "the user whose uid is the default of --proxy-uid"),
)
"""Without a flag: name, default, effect."""
