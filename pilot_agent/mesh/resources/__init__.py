"""What Envoy gets, as plain values for the templates. `view` puts it together."""
