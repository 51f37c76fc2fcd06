"""Istio's PeerAuthentication (security.istio.io): whether this proxy's ports take mutual TLS, plain text or both."""

from typing import cast

from pilot_agent.mesh.model import Origin
from pilot_agent.mesh.policy import PeerAuthentication, PeerMode
from pilot_agent.mesh.reading.fields import Field
from pilot_agent.mesh.reading.metadata import metadata, selector
from pilot_agent.values import parse_port

MAX_PORTS = 256

_SPEC_KEYS = ("selector", "mtls", "portLevelMtls")
_MODES = ("UNSET", "DISABLE", "PERMISSIVE", "STRICT")


def peer_authentication(document: Field, origin: Origin) -> PeerAuthentication:
    """Shape: a Kubernetes object of kind PeerAuthentication. Raises FieldRefused."""
    meta = metadata(document, origin)
    spec = document["spec"].mapping(_SPEC_KEYS)
    labels = selector(spec["selector"], "matchLabels")
    ports = {_port(entry): _mode(entry) for entry in spec["portLevelMtls"].entries(MAX_PORTS)}
    if ports and labels is None:
        spec["portLevelMtls"].refuse("is given for a whole namespace: add selector.matchLabels to say whose ports")
    return PeerAuthentication(origin, meta.name, meta.namespace, labels, _mode(spec["mtls"]), ports)


def _mode(field: Field) -> PeerMode:
    mode = field.mapping(("mode",))["mode"]
    return cast(PeerMode, mode.choice(_MODES)) if mode.is_set else "UNSET"


def _port(field: Field) -> int:
    try:
        return parse_port(field.name)
    except ValueError:
        field.refuse("is not a port: give the number of a port of the workload, from 1 to 65535")
