"""The cloud the agent runs in: which one it is, and what its metadata server says of the instance."""
