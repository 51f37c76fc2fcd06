"""What a running Envoy, or a dump of one, is configured to do: the views of `pilot-agent proxy-config`."""
