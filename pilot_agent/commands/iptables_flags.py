"""The flags of `pilot-agent istio-iptables`: Istio's, from the table of `interception.settings`, and its actions'."""

from pilot_agent.commands.flags import Flag
from pilot_agent.interception.settings import SETTINGS

IPTABLES_FLAGS = tuple(
    Flag(each.name, each.attribute, each.default, each.effect, metavar=each.metavar, short=each.short)
    for each in SETTINGS
)
EXPLAIN_FLAGS = (
    Flag("json", "wants_json", False, "Of plan, status and explain: print JSON, for programs"),
    Flag("uid", "uid", "", "Of explain: user of the process that sends", metavar="UID"),
    Flag("gid", "gid", "", "Of explain: group of the process that sends", metavar="GID"),
    Flag("source", "source", "", "Of explain: source address", metavar="IP"),
    Flag("destination", "destination", "", "Of explain: destination address", metavar="IP"),
    Flag("port", "port", 80, "Of explain: destination port", least=1),
    Flag("protocol", "protocol", "tcp", "Of explain: tcp or udp", choices=("tcp", "udp")),
    Flag(
        "interface",
        "interface",
        "",
        "Of explain: where it comes in; empty for one that a process of the pod sends",
        metavar="NAME",
    ),
)
