"""What the agent was told, and by whom: flags, variables, files and annotations, merged into one frozen tree."""
