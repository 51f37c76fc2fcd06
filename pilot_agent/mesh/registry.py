"""All documents together: services with their endpoints, and everything else by kind.

Joins what stands in different documents: WorkloadEntries to the services that select them, EndpointSlices to their
Service. Called by claims for one document at a time and by local for all of them; pure.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

from pilot_agent.mesh.model import (
    Endpoint,
    KubernetesService,
    Options,
    Problem,
    Resource,
    Service,
    ServiceEndpoints,
    ServiceEntry,
    WorkloadEntry,
)
from pilot_agent.mesh.names import kubernetes_host
from pilot_agent.mesh.policy import DestinationRule, PeerAuthentication, Sidecar
from pilot_agent.mesh.traffic import VirtualService

Kind = TypeVar("Kind")


class Registry(NamedTuple):
    """The mesh as declared, in the order of files and documents, which decides where Istio takes the oldest."""

    services: tuple[Service, ...] = ()
    virtual_services: tuple[VirtualService, ...] = ()
    destination_rules: tuple[DestinationRule, ...] = ()
    peer_authentications: tuple[PeerAuthentication, ...] = ()
    sidecars: tuple[Sidecar, ...] = ()
    problems: tuple[Problem, ...] = ()


def register(resources: Iterable[Resource], options: Options) -> Registry:
    resources = tuple(resources)
    problems: list[Problem] = []
    return Registry(
        services=tuple(_with_endpoints(resources, problems, options)),
        virtual_services=_of(resources, VirtualService),
        destination_rules=_of(resources, DestinationRule),
        peer_authentications=_of(resources, PeerAuthentication),
        sidecars=_of(resources, Sidecar),
        problems=tuple(problems),
    )


def services_of(resource: Resource, options: Options) -> Iterator[Service]:
    """The hosts one document declares, with the endpoints that stand in it; none for the other kinds."""
    if isinstance(resource, ServiceEntry):
        for index, host in enumerate(resource.hosts):
            yield Service(
                origin=resource.origin,
                path=("spec", "hosts", index),
                name=resource.name,
                namespace=resource.namespace,
                host=host,
                addresses=resource.addresses,
                ports=resource.ports,
                resolution=resource.resolution,
                endpoints=resource.endpoints,
                subject_alt_names=resource.subject_alt_names,
                export_to=resource.export_to,
                is_external=resource.location == "MESH_EXTERNAL",
            )
    elif isinstance(resource, KubernetesService):
        yield Service(
            origin=resource.origin,
            path=("metadata", "name"),
            name=resource.name,
            namespace=resource.namespace,
            host=kubernetes_host(resource.name, resource.namespace, options.domain),
            addresses=resource.cluster_ips,
            ports=resource.ports,
            resolution="NONE" if resource.is_headless else "DNS" if resource.external_name else "STATIC",
            endpoints=_external(resource.external_name),
            export_to=resource.export_to,
            is_headless=resource.is_headless,
        )


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """As a Kubernetes label selector: every pair of it is there. An empty one selects everything."""
    return all(labels.get(name) == value for name, value in selector.items())


def _of(resources: tuple[Resource, ...], kind: type[Kind]) -> tuple[Kind, ...]:
    return tuple(each for each in resources if isinstance(each, kind))


def _external(name: str) -> tuple[Endpoint, ...]:
    return (Endpoint(name, {}, 1, ("", "", ""), {}),) if name else ()


class _Workloads:
    """The WorkloadEntries, found by address and by label: there may be as many as endpoints."""

    def __init__(self, entries: Iterable[WorkloadEntry]) -> None:
        self._by_address: dict[tuple[str, str], Endpoint] = {}
        self._by_label: dict[tuple[str, str, str], list[WorkloadEntry]] = {}
        for entry in entries:
            self._by_address.setdefault((entry.namespace, entry.endpoint.address), entry.endpoint)
            for name, value in entry.endpoint.labels.items():
                self._by_label.setdefault((entry.namespace, name, value), []).append(entry)

    def at(self, namespace: str, address: str) -> Endpoint | None:
        return self._by_address.get((namespace, address))

    def selected(self, namespace: str, selector: Mapping[str, str]) -> list[WorkloadEntry]:
        name, value = next(iter(selector.items()))
        candidates = self._by_label.get((namespace, name, value), ())
        return [each for each in candidates if selects(selector, each.endpoint.labels)]


def _with_endpoints(resources: tuple[Resource, ...], problems: list[Problem], options: Options) -> Iterator[Service]:
    workloads = _Workloads(_of(resources, WorkloadEntry))
    slices: dict[tuple[str, str], list[ServiceEndpoints]] = {}
    for part in _of(resources, ServiceEndpoints):
        slices.setdefault((part.namespace, part.service), []).append(part)
    for resource in resources:
        for service in services_of(resource, options):
            found = [*service.endpoints]
            if isinstance(resource, KubernetesService):
                for part in slices.get((resource.namespace, resource.name), ()):
                    found += [_described(endpoint, resource.namespace, workloads) for endpoint in part.endpoints]
            if isinstance(resource, ServiceEntry | KubernetesService) and resource.selector:
                waiting = {endpoint.address for endpoint in found if not endpoint.is_ready}
                selected = workloads.selected(resource.namespace, resource.selector)
                problems += _unusable(selected, service)
                found += [
                    entry.endpoint
                    for entry in selected
                    if entry.endpoint.address not in waiting and _is_usable(entry, service)
                ]
            yield service._replace(
                endpoints=_once([each for each in found if each.is_ready], service),
                unready=_once([each for each in found if not each.is_ready], service),
            )


def _is_usable(entry: WorkloadEntry, service: Service) -> bool:
    """Envoy refuses a name among the addresses of a service that is not to be resolved."""
    from pilot_agent.mesh.reading.addresses import canonical  # not for a start without such documents

    return service.resolution != "STATIC" or canonical(entry.endpoint.address) is not None


def _unusable(selected: list[WorkloadEntry], service: Service) -> Iterator[Problem]:
    for entry in selected:
        if not _is_usable(entry, service):
            text = (
                f"{entry.endpoint.address} is a name, and {service.host} takes addresses only: it gets no traffic; "
                "give an IP address, or the service resolution DNS"
            )
            yield Problem(entry.origin, ("spec", "address"), text)


def _described(endpoint: Endpoint, namespace: str, workloads: _Workloads) -> Endpoint:
    """An address of an EndpointSlice with what the WorkloadEntry at that address knows of it."""
    known = workloads.at(namespace, endpoint.address)
    if known is None:
        return endpoint
    return endpoint._replace(
        labels={**known.labels, **endpoint.labels},
        service_account=endpoint.service_account or known.service_account,
        locality=endpoint.locality if any(endpoint.locality) else known.locality,
    )


def _once(endpoints: list[Endpoint], service: Service) -> tuple[Endpoint, ...]:
    """Without an endpoint told twice, as by a slice and by a selected WorkloadEntry: the first has it."""
    found: dict[tuple[object, ...], Endpoint] = {}
    for endpoint in endpoints:
        found.setdefault((endpoint.address, *(endpoint.port(port) for port in service.ports)), endpoint)
    return tuple(found.values())
