"""Port 15020: readiness with reasons, and the control endpoints."""
