"""Capturing a network namespace's traffic for Envoy: the rules, what is there of them, and the way between."""
