"""Where a route goes: a destination, and the weights of several. Shared by HTTP, TLS and TCP routes."""

from pilot_agent.mesh.reading.addresses import host
from pilot_agent.mesh.reading.fields import Field
from pilot_agent.mesh.reading.metadata import label
from pilot_agent.mesh.traffic import Destination

MAX_DESTINATIONS = 256
MAX_WEIGHT = 2**31 - 1
MAX_SUM = 2**32 - 1  # Envoy refuses a route whose weights are more than 32 bits together

_KEYS = ("host", "subset", "port")


def destination(field: Field) -> Destination:
    if not field.is_set:
        field.refuse("is missing: give the destination with its host")
    field.mapping(_KEYS)
    number = field["port"].mapping(("number",))["number"]
    subset = field["subset"]
    return Destination(
        host=host(field["host"]),
        subset=label(subset, "the name of a subset") if subset.optional_text() else "",
        port=number.port() if field["port"].is_set else None,
    )


def check_weights(field: Field, weights: list[int]) -> None:
    if not weights:
        field.refuse("is missing or empty: give at least one destination")
    if len(weights) > 1 and not sum(weights):
        field.refuse("has weight 0 everywhere: give at least one destination a weight")
    if sum(weights) > MAX_SUM:
        field.refuse(f"has weights of more than {MAX_SUM} together: use smaller weights")


def weight(field: Field) -> int:
    return field["weight"].whole_number(0, MAX_WEIGHT) if field["weight"].is_set else 0
