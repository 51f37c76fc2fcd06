"""Local mode: Istio YAML in a directory becomes Envoy's file-based xDS."""
