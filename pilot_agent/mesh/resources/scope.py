"""What this proxy sees of the mesh: its Sidecar, and the services each of its egress listeners leads to.

Without a Sidecar that is one scope with every service on its own ports. Called by view; pure.
"""

from typing import NamedTuple

from pilot_agent.mesh.model import Options, OutboundPolicy, Service, ServicePort
from pilot_agent.mesh.names import is_exported, matches_host
from pilot_agent.mesh.policy import EgressListener, Sidecar
from pilot_agent.mesh.registry import Registry, selects


class Scope(NamedTuple):
    """One egress listener. `port` None leaves each service its own; `bind` is "" for where Istio would listen.

    `is_bound` opens the port on the machine, as clients need it where nothing is intercepted. `hosts` are (namespace,
    host) with wildcards.
    """

    services: tuple[Service, ...]
    is_bound: bool
    port: int | None = None
    bind: str = ""
    hosts: tuple[tuple[str, str], ...] = (("*", "*"),)

    def sees(self, namespace: str, host: str) -> bool:
        """Whether a host declared in this namespace is for this listener."""
        return _takes(self.hosts, namespace, host)

    def ports(self, service: Service) -> tuple[ServicePort, ...]:
        return tuple(port for port in service.ports if self.port in (None, port.number))


class Sight(NamedTuple):
    """`services` are all that may be named in a rule, `scopes` what has listeners."""

    sidecar: Sidecar | None
    services: tuple[Service, ...]
    scopes: tuple[Scope, ...]
    outbound_policy: OutboundPolicy


def look(registry: Registry, options: Options) -> Sight:
    exported = tuple(
        service for service in registry.services if is_exported(service.export_to, service.namespace, options.namespace)
    )
    sidecar = _sidecar(registry.sidecars, options)
    if sidecar is None or not sidecar.egress:
        scopes: tuple[Scope, ...] = (Scope(exported, is_bound=not options.is_intercepting),)
    else:
        scopes = tuple(_scope(listener, exported, options) for listener in sidecar.egress)
    policy = sidecar.outbound_policy if sidecar else ""
    return Sight(sidecar, exported, scopes, policy or options.outbound_policy)


def _sidecar(sidecars: tuple[Sidecar, ...], options: Options) -> Sidecar | None:
    """The workload's own, else its namespace's, else the root namespace's without a selector."""
    own = [each for each in sidecars if each.namespace == options.namespace]
    for each in own:
        if each.selector and selects(each.selector, options.labels):
            return each
    of_mesh = [each for each in sidecars if each.namespace == options.root_namespace]
    return next((each for each in (*own, *of_mesh) if not each.selector), None)


def _scope(listener: EgressListener, services: tuple[Service, ...], options: Options) -> Scope:
    meant = {".": options.namespace}
    hosts = tuple((meant.get(where, where), host) for where, host in listener.hosts if where != "~")
    found = [service for service in services if _takes(hosts, service.namespace, service.host)]
    is_bound = listener.capture_mode == "NONE" or not options.is_intercepting
    return Scope(tuple(found), is_bound, listener.port, listener.bind, hosts)


def _takes(hosts: tuple[tuple[str, str], ...], namespace: str, host: str) -> bool:
    return any(where in ("*", namespace) and matches_host(pattern, host) for where, pattern in hosts)
