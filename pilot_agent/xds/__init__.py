"""xDS between Envoy and istiod: the ADS proxy, and what the agent itself reads of it."""
