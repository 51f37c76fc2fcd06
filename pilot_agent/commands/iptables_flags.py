"""The flags of `pilot-agent istio-iptables`: Istio's, from the table of `interception.settings`, and its actions'."""

from pilot_agent.commands.flags import Flag
from pilot_agent.interception.settings import SETTINGS

IPTABLES_FLAGS = tuple(
    Flag(each.name, each.attribute, each.default, each.effect, metavar=each.metavar, short=each.short)
    for each in SETTINGS
)
EXPLAIN_FLAGS = (
    Flag("json", "wants_json", False, "Of plan, status and explain: print JSON, for programs"),
    Flag("uid", "uid", "", "Of explain: user of the process that sends (default 0)", metavar="UID"),
    Flag("gid", "gid", "", "Of explain: group of the process that sends (default as --uid)", metavar="GID"),
    Flag("source", "source", "", "Of explain: source address (default the pod's)", metavar="IP"),
    Flag("destination", "destination", "", "Of explain: destination address", metavar="IP"),
    Flag("port", "port", 80, "Of explain: destination port", least=1),
    Flag("protocol", "protocol", "tcp", "Of explain: tcp or udp", choices=("tcp", "udp")),
    Flag(
        "out-interface",
        "out_interface",
        "",
        "Of explain: where it goes out (default lo for the pod's own addresses, else eth0)",
        metavar="NAME",
    ),
    Flag("planned", "planned", False, "Of explain: by the rules these flags would make, not by those that are there"),
    Flag(
        "interface",
        "interface",
        "",
        "Of explain: where it comes in; empty for one that a process of the pod sends",
        metavar="NAME",
    ),
)
