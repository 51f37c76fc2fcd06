"""The page at `/`: the shipped HTML, style and script as one document that needs nothing else from anywhere.

Owns what the browser is told to refuse: all but this script, this style and requests to the port the page came from.
Knows nothing of the facts: the script asks /debug/status for them. Imported by the routes when the page is asked for.
"""

import base64
import hashlib
from pathlib import Path

_STYLE = b'<link rel="stylesheet" href="style.css">'
_SCRIPT = b'<script type="module" src="page.js"></script>'
_HEAD = b"<head>\n"


def page() -> bytes:
    """The document, HTML in UTF-8, with its policy inside. Reads three small files; OSError when one is missing."""
    style, script = _shipped("style.css"), _shipped("page.js")
    policy = f'<meta http-equiv="Content-Security-Policy" content="{_policy(style, script)}">\n'.encode()
    document = _shipped("index.html")
    document = _put(document, _HEAD, _HEAD + policy)  # before all that it governs
    document = _put(document, _STYLE, b"<style>" + style + b"</style>")
    return _put(document, _SCRIPT, b'<script type="module">' + script + b"</script>")


def headers() -> dict[str, str]:
    """What goes with the document; `frame-ancestors` counts only here (Content Security Policy 3, section 3.3)."""
    return {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": f"{_policy(_shipped('style.css'), _shipped('page.js'))}; frame-ancestors 'none'",
        "Cache-Control": "no-store",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


def _policy(style: bytes, script: bytes) -> str:
    rules = {
        "default-src": "'none'",
        "script-src": _hash(script),
        "style-src": _hash(style),
        "connect-src": "'self'",
        "img-src": "data:",  # the icon, which the script draws in the colour of the readiness
        "base-uri": "'none'",
        "form-action": "'none'",
        # A string can't become markup or code, whatever the script does with it.
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _hash(text: bytes) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'"


def _put(document: bytes, place: bytes, text: bytes) -> bytes:
    before, found, after = document.partition(place)
    if not found:
        raise ValueError(f"the page has no {place.decode().strip()}")
    return before + text + after


def _shipped(name: str) -> bytes:
    from pilot_agent.bootstrap.render import templates_directory

    return Path(templates_directory(), "page", name).read_bytes()
