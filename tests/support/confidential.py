"""What no log, dump or answer may ever show: the tests' private keys and tokens, noted once and looked for later.

One list for the whole session. Whoever makes a key or sees a token confides it; whoever has output to judge asks.
"""

import re

MARKER = "PRIVATE KEY-----"
SHORTEST = 12
"""Less text than this could stand anywhere by chance."""

_KEY = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----(.*?)-----END", re.DOTALL)
_secrets: dict[str, str] = {}


def confide(secret: str | bytes) -> None:
    """A private key as PEM (each line of it counts by itself) or a token."""
    text = secret.decode() if isinstance(secret, bytes) else secret
    bodies = _KEY.findall(text)
    for line in [line for body in bodies for line in _private_lines(body.split())] if bodies else [text.strip()]:
        if len(line) >= SHORTEST:
            _secrets[line] = f"{'a key' if bodies else 'a token'} ({line[:4]}..., {len(line)} characters)"


def found_in(data: str | bytes) -> list[str]:
    """Which of the secrets stand in the data, each shortened; and the marker of private keys, whosever they are."""
    text = data.decode(errors="replace") if isinstance(data, bytes) else data
    found = [name for secret, name in _secrets.items() if secret in text]
    return [*found, *([f"the marker {MARKER}"] if MARKER in text else [])]


def _private_lines(lines: list[str]) -> list[str]:
    """Without the lines that hold the public key, which a certificate shows too: RSA's come first, EC's last."""
    return lines[:2] if len(lines) <= 6 else lines[len(lines) // 2 :]
