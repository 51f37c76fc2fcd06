"""The workload's identity: who serves its certificates."""
