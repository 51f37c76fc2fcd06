"""Root certificates of several origins as one set (reference security-xds.md, section 3.6). Pure."""

from collections.abc import Iterable


def merged_roots(*origins: Iterable[str]) -> bytes:
    """The union of PEM blocks, sorted as texts, a newline between two and none at the end: what Istio serves.

    Blocks are compared as texts, without white space around them.
    """
    blocks = {block.strip() for origin in origins for block in origin}
    return "\n".join(sorted(blocks - {""})).encode()
