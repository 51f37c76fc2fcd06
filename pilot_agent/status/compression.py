"""Which content encoding an answer gets, and the encoders: zstd and gzip.

Owns no response. `server` compresses the merged metrics with it (reference: status server, compression).
"""

import importlib
import zlib
from collections.abc import Sequence
from typing import Any, Protocol

LEAST_BYTES = 1024
"""A shorter body is sent as it is."""

_GZIP_LEVEL = 1
"""20 MB of metrics: level 1 makes them 14 times smaller in 0.03 s, level 6 15 times in 0.10 s (measured)."""

_GZIP_WINDOW = 31  # zlib's way to say: with gzip's header
_ZSTD_MODULES = ("compression.zstd", "backports.zstd")  # Python 3.14's own, and the same for older ones


class Encoder(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class Compression:
    """Looks once for what there is."""

    def __init__(self) -> None:
        self._zstd = _find_zstd()
        self.encodings = ("zstd", "gzip") if self._zstd else ("gzip",)

    def choose(self, accepted: Sequence[str]) -> str | None:
        """The encoding for a client with these Accept-Encoding headers; None for none."""
        return choose_encoding(",".join(accepted), self.encodings)

    def encoder(self, encoding: str) -> Encoder:
        """A new stream of one of `encodings`."""
        if encoding == "zstd":
            encoder: Encoder = self._zstd.ZstdCompressor()
            return encoder
        return zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_WINDOW)


def choose_encoding(accepted: str, offered: Sequence[str]) -> str | None:
    """The one of `offered` with the highest q, the first of equals; None when none is wanted.

    `*` stands for what is not named (RFC 9110, 12.5.3).
    """
    wanted: dict[str, float] = {}
    for part in accepted.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        wanted[name] = _quality(parameters)
    qualities = {encoding: wanted.get(encoding, wanted.get("*", 0.0)) for encoding in offered}
    best = max(offered, key=lambda encoding: qualities[encoding])
    return best if qualities[best] > 0 else None


def _quality(parameters: Sequence[str]) -> float:
    for key, _, value in (parameter.partition("=") for parameter in parameters):
        if key.strip() == "q":
            try:
                quality = float(value)
            except ValueError:
                return 0.0
            return quality if 0 <= quality <= 1 else 0.0
    return 1.0


def _find_zstd() -> Any:
    for name in _ZSTD_MODULES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None
