"""The flags of `proxy-config`, and which of its views takes which.

`table` declares the command with all of them; `proxy_config` refuses what its view does not take.
"""

from pilot_agent.commands.flags import Flag

VIEW_FLAGS = (
    Flag("file", "file", "", "Read this dump instead of asking Envoy; - is standard input", metavar="FILE", short="f"),
    Flag(
        "output",
        "output",
        "",
        "Print as json, yaml or, in tables, short (default short; json for bootstrap)",
        choices=("json", "yaml", "short"),
        short="o",
    ),
    Flag("adminPort", "admin_port", 15000, "Port of Envoy's admin interface", least=1),
    Flag("proxy-admin-port", "proxy_admin_port", 15000, "The same, as istioctl calls it", least=1),
    Flag("address", "address", "", "listeners, endpoints: those with this address", metavar="ADDRESS"),
    Flag("port", "port", 0, "listeners, clusters, endpoints: those with this port (default 0: all)", least=0),
    Flag("type", "kind", "", "listeners: those of this type", metavar="HTTP|TCP|HTTP+TCP|UNKNOWN"),
    Flag("verbose", "verbose", True, "listeners, routes: matches and destinations, rather than types and counts"),
    Flag("name", "name", "", "routes: the one of this name", metavar="NAME"),
    Flag("fqdn", "fqdn", "", "clusters: those with this in their name, such as a service's", metavar="TEXT"),
    Flag("direction", "direction", "", "clusters: those of this direction", metavar="inbound|outbound"),
    Flag("subset", "subset", "", "clusters: those with this in their name, such as a subset's", metavar="TEXT"),
    Flag("cluster", "cluster", "", "endpoints: those of this cluster", metavar="NAME"),
    Flag("status", "status", "", "endpoints: those of this status, such as healthy", metavar="STATUS"),
    Flag("level", "level", "", "log: set these levels", metavar="[SCOPE:]LEVEL,..."),
    Flag("reset", "reset", False, "log: set every level to warning, what Istio starts Envoy with", short="r"),
)

_ENVOY = ("admin_port", "proxy_admin_port")
_DUMP = ("file", "output", *_ENVOY)
_LISTENERS = ("address", "port", "kind", "verbose")
_ROUTES = ("name", "verbose")
_CLUSTERS = ("fqdn", "direction", "port", "subset")
_ENDPOINTS = ("address", "port", "cluster", "status")

TAKEN = {
    "all": (*_DUMP, *_LISTENERS, *_ROUTES, *_CLUSTERS, *_ENDPOINTS),
    "bootstrap": _DUMP,
    "clusters": (*_DUMP, *_CLUSTERS),
    "endpoints": (*_DUMP, *_ENDPOINTS),
    "listeners": (*_DUMP, *_LISTENERS),
    "log": ("level", "reset", *_ENVOY),
    "routes": (*_DUMP, *_ROUTES),
    "secrets": _DUMP,
}
"""By view, the attributes of the flags that it takes."""

VIEWS = {
    **{view: view for view in TAKEN},
    **{"a": "all", "b": "bootstrap", "c": "clusters", "cluster": "clusters", "ep": "endpoints", "l": "listeners"},
    **{"endpoint": "endpoints", "listener": "listeners", "o": "log", "r": "routes", "route": "routes"},
    **{"s": "secrets", "secret": "secrets"},
}
"""The view by each of its names; the short ones are istioctl's."""
