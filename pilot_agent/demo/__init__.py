"""`pilot-agent demo`: two pods on this machine, a request between them hop by hop, and what happens to their agents."""
