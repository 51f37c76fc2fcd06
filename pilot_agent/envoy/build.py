"""Whose build of Envoy a binary is: its version, and whether it has Istio's extensions.

Starts no process: it gives the arguments to ask the binary with, and reads the answer (as `bootstrap.validate`).
"""

from pathlib import Path
from typing import NamedTuple

ISTIO_EXTENSIONS = ("workload_discovery", "peer_metadata", "istio")
"""Parts of extension names that only Istio's build registers (istio_stats, istio.alpn, ...)."""

_MINIMAL = '{"bootstrap_extensions":[]}'


class Build(NamedTuple):
    """What is known of the binary at `path`. `extensions` is empty when it did not answer."""

    path: Path
    extensions: frozenset[str]

    @property
    def is_known(self) -> bool:
        return bool(self.extensions)

    @property
    def is_istio(self) -> bool:
        return any(part in name for name in self.extensions for part in ISTIO_EXTENSIONS)


def extensions_argv(binary: Path) -> list[str]:
    """Envoy writes the list of its extensions to its log at the start; `init_only` ends it right after that."""
    return [str(binary), "--mode", "init_only", "--config-yaml", _MINIMAL, "-l", "info", "--disable-hot-restart"]


def version_argv(binary: Path) -> list[str]:
    return [str(binary), "--version"]


def read_build(binary: Path, output: str) -> Build:
    """From the output of `extensions_argv`: lines `  category: name, name` behind the head of a log line."""
    found: set[str] = set()
    for line in output.splitlines():
        _, indent, text = line.rpartition("  ")
        category, colon, names = text.partition(": ")
        if indent and colon and " " not in category:
            found.update(names.partition("\t")[0].split(", "))
    return Build(binary, frozenset(found))


def leaves_istio_parts_out(choice: str, build: Build | None) -> bool:
    """`--stockEnvoy`: true and false decide by themselves; auto goes by a build that answered, else keeps all."""
    if choice == "auto":
        return build is not None and build.is_known and not build.is_istio
    return choice == "true"
