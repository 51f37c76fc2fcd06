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


def register(resources: Iterable[Resource], options: Options) -> Registry:
    resources = tuple(resources)
    return Registry(
        services=tuple(_with_endpoints(resources, options)),
        virtual_services=_of(resources, VirtualService),
        destination_rules=_of(resources, DestinationRule),
        peer_authentications=_of(resources, PeerAuthentication),
        sidecars=_of(resources, Sidecar),
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


def _with_endpoints(resources: tuple[Resource, ...], options: Options) -> Iterator[Service]:
    workloads: dict[str, list[WorkloadEntry]] = {}
    for workload in _of(resources, WorkloadEntry):
        workloads.setdefault(workload.namespace, []).append(workload)
    slices: dict[tuple[str, str], list[ServiceEndpoints]] = {}
    for part in _of(resources, ServiceEndpoints):
        slices.setdefault((part.namespace, part.service), []).append(part)
    for resource in resources:
        neighbours = workloads.get(resource.namespace, [])
        for service in services_of(resource, options):
            found = [*service.endpoints]
            if isinstance(resource, KubernetesService):
                for part in slices.get((resource.namespace, resource.name), ()):
                    found += [_described(endpoint, neighbours) for endpoint in part.endpoints]
            if isinstance(resource, ServiceEntry | KubernetesService) and resource.selector:
                waiting = {endpoint.address for endpoint in found if not endpoint.is_ready}
                selected = _selected(neighbours, resource.selector)
                found += [endpoint for endpoint in selected if endpoint.address not in waiting]
            yield service._replace(
                endpoints=_once([each for each in found if each.is_ready], service),
                unready=_once([each for each in found if not each.is_ready], service),
            )


def _selected(workloads: list[WorkloadEntry], selector: Mapping[str, str]) -> list[Endpoint]:
    return [workload.endpoint for workload in workloads if selects(selector, workload.endpoint.labels)]


def _described(endpoint: Endpoint, workloads: list[WorkloadEntry]) -> Endpoint:
    """An address of an EndpointSlice with what the WorkloadEntry at that address knows of it."""
    known = next((each.endpoint for each in workloads if each.endpoint.address == endpoint.address), None)
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
