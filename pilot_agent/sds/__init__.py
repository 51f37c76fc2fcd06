"""Secrets for Envoy: an SDS server on a Unix socket in a mesh, files in local mode."""
