"""pilot-agent: the process that runs Envoy as an Istio sidecar. See docs/overview.md for the map of the packages."""

__version__ = "0.1.0"
