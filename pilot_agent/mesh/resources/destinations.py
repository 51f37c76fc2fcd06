"""Where a rule sends traffic: from the host, subset and port it names to Envoy's cluster, or to what is wrong with it.

It remembers what was asked for, so that a cluster is there for each, and knows the DestinationRule and the policy of
each. Used by routes, outbound and clusters for one view.
"""

from collections.abc import Iterable, Iterator

from pilot_agent.mesh.model import Options, Origin, Path, Problem, Service
from pilot_agent.mesh.names import cluster_name, full_host, is_exported, most_specific
from pilot_agent.mesh.policy import DestinationRule, TrafficPolicy
from pilot_agent.mesh.registry import selects
from pilot_agent.mesh.traffic import Destination


class Rules:
    """The DestinationRules this proxy has to follow, by namespace and host.

    Where one is looked for first is Istio's: the client's namespace, the service's, the root namespace; in each the
    host that fits best. Several for one host are one, but for what the first says already.
    """

    def __init__(self, rules: Iterable[DestinationRule], options: Options) -> None:
        self._options = options
        self._rules: dict[str, dict[str, DestinationRule]] = {}
        own = [rule for rule in rules if rule.selector is None or _is_own(rule, options)]
        # A rule with a selector that fits goes before one without; then the order of the documents.
        for rule in sorted(own, key=lambda rule: rule.selector is None):
            if is_exported(rule.export_to, rule.namespace, options.namespace):
                hosts = self._rules.setdefault(rule.namespace, {})
                host = full_host(rule.host, rule.namespace, options.domain).lower()
                hosts[host] = _merged(hosts[host], rule) if host in hosts else rule
        self._patterns = {
            namespace: [host for host in hosts if host.startswith("*")] for namespace, hosts in self._rules.items()
        }

    def of(self, service: Service) -> DestinationRule | None:
        """The one for this service."""
        if not self._rules:
            return None
        found = (self._in(namespace, service.host) for namespace in self._namespaces(service.namespace))
        return next((rule for rule in found if rule is not None), None)

    def _namespaces(self, service: str) -> Iterator[str]:
        options = self._options
        if options.namespace != options.root_namespace:  # a rule of the mesh must not hide a service's own
            yield options.namespace
        yield from (service, options.root_namespace)

    def _in(self, namespace: str, host: str) -> DestinationRule | None:
        hosts = self._rules.get(namespace, {})
        exact = hosts.get(host.lower())
        if exact is not None or not hosts:
            return exact
        pattern = most_specific(self._patterns[namespace], host)
        return hosts[pattern] if pattern is not None else None


def policy_of(rule: DestinationRule | None, port: int, subset: str = "") -> TrafficPolicy:
    """As Istio merges it: what is said for a port replaces all of what is said around it, for the host and again for
    the subset; each part of the subset's goes before the host's."""
    if rule is None:
        return TrafficPolicy()
    whole = rule.policy.ports.get(port, rule.policy)
    own = next((each.policy for each in rule.subsets if each.name == subset), TrafficPolicy())
    if port in own.ports:
        return own.ports[port]
    return TrafficPolicy(
        own.load_balancer or whole.load_balancer,
        own.connection_pool or whole.connection_pool,
        own.outlier_detection or whole.outlier_detection,
        own.tls or whole.tls,
    )


def _is_own(rule: DestinationRule, options: Options) -> bool:
    return rule.namespace == options.namespace and selects(rule.selector or {}, options.labels)


def _merged(first: DestinationRule, second: DestinationRule) -> DestinationRule:
    """Rules for one workload alone, or seen from elsewhere than the first, stay apart: the first counts."""
    if first.selector is not None or set(first.export_to) != set(second.export_to):
        return first
    known = {subset.name for subset in first.subsets}
    return first._replace(
        policy=second.policy if first.policy == TrafficPolicy() else first.policy,
        subsets=(*first.subsets, *(subset for subset in second.subsets if subset.name not in known)),
    )


class Destinations:
    """Resolves the destinations of rules. `problems` collects what can't be: its requests are answered with 503.

    `asked` has the services that were asked for, by where they are declared.
    """

    def __init__(self, services: Iterable[Service], rules: Rules, options: Options) -> None:
        # A host may be declared in several documents, each with other ports.
        self._services: dict[str, list[Service]] = {}
        for service in services:
            self._services.setdefault(service.host.lower(), []).append(service)
        self.rules, self._options = rules, options
        self.asked: dict[tuple[Origin, Path], Service] = {}
        self.problems: list[Problem] = []

    def cluster(self, wanted: Destination, namespace: str, port: int, where: tuple[Origin, Path]) -> str:
        """The cluster's name, whether there is such a cluster or not. `port` is the listener's."""
        origin, path = where
        host, services, number = self._resolved(wanted, namespace, port)
        if not services:
            text = f"{host} is no service of this mesh: requests sent there get 503; declare it, or correct the name"
            self.report(origin, (*path, "host"), text)
            return cluster_name(number, host, wanted.subset)
        service = _having(services, number)
        if service is None:
            known = ", ".join(str(each) for each in _numbers(services))
            text = f"{host} has no port {number}: requests sent there get 503; use one of {known}"
            self.report(origin, (*path, "port"), text)
            return cluster_name(number, host, wanted.subset)
        self.asked[service.origin, service.path] = service
        if wanted.subset:
            rule = self.rules.of(service)
            if rule is None or wanted.subset not in {subset.name for subset in rule.subsets}:
                text = f"{wanted.subset} is no subset that a DestinationRule declares for {host}: requests get 503"
                self.report(origin, (*path, "subset"), text)
        return cluster_name(number, service.host, wanted.subset)

    def policy(self, wanted: Destination, namespace: str, port: int) -> TrafficPolicy:
        """What the DestinationRule says of it. `port` is the listener's."""
        _, services, number = self._resolved(wanted, namespace, port)
        service = _having(services, number)
        return policy_of(self.rules.of(service), number, wanted.subset) if service else TrafficPolicy()

    def report(self, origin: Origin, path: Path, reason: str) -> None:
        """As often as the document is used, once for each listener perhaps; view tells each once."""
        self.problems.append(Problem(origin, path, reason))

    def _resolved(self, wanted: Destination, namespace: str, port: int) -> tuple[str, list[Service], int]:
        """The full host, the services that have it, and the port: the only one of a service needs no saying."""
        host = full_host(wanted.host, namespace, self._options.domain)
        services = self._services.get(host.lower(), [])
        numbers = _numbers(services)
        return host, services, wanted.port or (numbers[0] if len(numbers) == 1 else port)


def _numbers(services: list[Service]) -> list[int]:
    return [port.number for service in services for port in service.ports]


def _having(services: list[Service], number: int) -> Service | None:
    return next((each for each in services if any(port.number == number for port in each.ports)), None)
