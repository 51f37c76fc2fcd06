"""Names: what istiod tells of them, for the DNS proxy."""
