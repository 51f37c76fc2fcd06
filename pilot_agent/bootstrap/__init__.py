"""Envoy's bootstrap document: what a template may see, rendering, and the check by Envoy itself."""
