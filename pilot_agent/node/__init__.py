"""Facts about where the agent runs: addresses, pod files, cgroup limits, and the node metadata they make."""
