"""Where a rule sends traffic: from the host, subset and port it names to Envoy's cluster, or to what is wrong with it.

It remembers what was asked for, so that a cluster is there for each. Used by routes and outbound for one view.
"""

from collections.abc import Iterable
from typing import NamedTuple

from pilot_agent.mesh.model import Options, Origin, Path, Service, ServicePort
from pilot_agent.mesh.names import cluster_name, full_host, is_exported, most_specific
from pilot_agent.mesh.policy import DestinationRule
from pilot_agent.mesh.registry import selects
from pilot_agent.mesh.traffic import Destination


class Problem(NamedTuple):
    """What is wrong with a document only because of what other documents say, or don't; the rest of it is used."""

    origin: Origin
    path: Path
    reason: str


class Rules:
    """The DestinationRules this proxy has to follow, by host."""

    def __init__(self, rules: Iterable[DestinationRule], options: Options) -> None:
        self._by_host: dict[str, DestinationRule] = {}
        self._patterns: list[str] = []
        own = [rule for rule in rules if rule.selector is None or _is_own(rule, options)]
        # A rule with a selector that fits goes before one without; then the client's namespace, as istiod looks there
        # first; then the order of the documents.
        for rule in sorted(own, key=lambda rule: (rule.selector is None, rule.namespace != options.namespace)):
            if is_exported(rule.export_to, rule.namespace, options.namespace):
                self._by_host.setdefault(full_host(rule.host, rule.namespace, options.domain).lower(), rule)
        self._patterns = [host for host in self._by_host if host.startswith("*")]

    def of(self, host: str) -> DestinationRule | None:
        exact = self._by_host.get(host.lower())
        if exact is not None or not self._patterns:
            return exact
        pattern = most_specific(self._patterns, host)
        return self._by_host[pattern] if pattern is not None else None


def _is_own(rule: DestinationRule, options: Options) -> bool:
    return rule.namespace == options.namespace and selects(rule.selector or {}, options.labels)


class Destinations:
    """Resolves the destinations of rules. `problems` collects what can't be: its requests are answered with 503."""

    def __init__(self, services: Iterable[Service], rules: Rules, options: Options) -> None:
        self._services: dict[str, Service] = {}
        for service in services:
            self._services.setdefault(service.host.lower(), service)
        self.rules, self._options = rules, options
        self.asked: dict[str, Service] = {}
        self.problems: list[Problem] = []

    def cluster(self, wanted: Destination, namespace: str, port: int, where: tuple[Origin, Path]) -> str:
        """The cluster's name, whether there is such a cluster or not. `port` is the listener's."""
        origin, path = where
        host = full_host(wanted.host, namespace, self._options.domain)
        service = self._services.get(host.lower())
        if service is None:
            text = f"{host} is no service of this mesh: requests sent there get 503; declare it, or correct the name"
            self.report(origin, (*path, "host"), text)
            return cluster_name(wanted.port or port, host, wanted.subset)
        number = wanted.port or (service.ports[0].number if len(service.ports) == 1 else port)
        if number not in {each.number for each in service.ports}:
            text = f"{host} has no port {number}: use one of {', '.join(str(each.number) for each in service.ports)}"
            self.report(origin, (*path, "port"), text)
        self.asked[service.host] = service
        if wanted.subset:
            rule = self.rules.of(service.host)
            if rule is None or wanted.subset not in {subset.name for subset in rule.subsets}:
                text = f"{wanted.subset} is no subset that a DestinationRule declares for {host}: requests get 503"
                self.report(origin, (*path, "subset"), text)
        return cluster_name(number, service.host, wanted.subset)

    def service(self, host: str) -> Service | None:
        return self._services.get(host.lower())

    def report(self, origin: Origin, path: Path, reason: str) -> None:
        """Once, however many listeners the document is used for."""
        problem = Problem(origin, path, reason)
        if problem not in self.problems:
            self.problems.append(problem)


def port_numbered(service: Service, number: int) -> ServicePort | None:
    return next((port for port in service.ports if port.number == number), None)
