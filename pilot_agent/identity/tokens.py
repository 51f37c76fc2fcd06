"""The token the CA and istiod know this workload by: read anew for every call, never kept, never shown.

Where it comes from is CREDENTIAL_FETCHER_TYPE's (reference security-xds.md, section 8).
"""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pilot_agent.clock import Clock
from pilot_agent.errors import IdentityError
from pilot_agent.log import Scope

SOON_S = 600.0
"""A token with less time left is about to expire: the kubelet renews one when a fifth of its time is left."""
LOOK_EVERY_S = 60.0
GCE_LOOK_EVERY_S = 300.0
"""As often as Istio's agent looks whether Google's token must be fetched anew: that goes over the network."""
LARGEST_TOKEN = 64 * 1024
YEAR_10000 = 253402300800.0
GCE_PATH = "/computeMetadata/v1/instance/service-accounts/default/identity?audience={audience}&format=full"
GCE_FILE_MODE = 0o640


class TokenState(NamedTuple):
    """What may be told of the token: when it expires (seconds since 1970, None: it does not say), and what is wrong."""

    expires_at: float | None
    problem: str | None


class Tokens:
    """`read` gives the token now. What is wrong with it is logged when it changes."""

    def __init__(
        self,
        read: Callable[[], str],
        log: Scope,
        clock: Clock,
        *,
        is_required: bool = False,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        """`read` raises IdentityError of kind `token`; where the token `is_required`, so does a call without one.

        `look_every_s`: how often to `look`, for who does that.
        """
        self._read, self._log, self._clock, self._is_required = read, log, clock, is_required
        self.look_every_s = look_every_s
        self.state = TokenState(None, None)

    def read(self) -> str:
        """The token, empty where there is none: the call goes on without one, as Istio's. Does file or network I/O.

        Raises IdentityError where a token is required and can't be had.
        """
        try:
            token = self._read()
        except IdentityError as error:
            self._say(TokenState(None, str(error)))
            if self._is_required:
                raise
            return ""
        self._say(self._judge(token))
        return token

    def look(self) -> None:
        """Judge it without using it: a warning that comes before the next renewal is worth more than one at it."""
        try:
            self.read()
        except IdentityError:
            pass  # said already

    def _judge(self, token: str) -> TokenState:
        expires_at = expiry_of(token)
        left = None if expires_at is None else expires_at - self._clock.wall()
        if left is None or left > SOON_S:
            return TokenState(expires_at, None)
        when = "has expired" if left <= 0 else f"expires in less than {SOON_S / 60:.0f} minutes"
        return TokenState(expires_at, f"the token {when}: whoever writes its file (the kubelet) has not renewed it")

    def _say(self, state: TokenState) -> None:
        if state.problem is not None and state.problem != self.state.problem:
            self._log.warn(f"{state.problem}; the CA may refuse us")
        elif state.problem is None and self.state.problem is not None:
            self._log.info("the token is good again")
        self.state = state


def token_file(path: Path) -> str:
    """The text of a token file without white space. Raises IdentityError, naming the path and never the content."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_TOKEN + 1)
    except OSError as error:
        raise IdentityError("token", f"the token {path} can't be read: {error.strerror}") from None
    if len(content) > LARGEST_TOKEN:
        raise IdentityError("token", f"the token {path} is larger than {LARGEST_TOKEN} bytes")
    try:
        text = content.decode("ascii").strip()
    except UnicodeDecodeError:
        text = "?\n?"
    if not text or not text.isprintable():
        raise IdentityError("token", f"the token {path} is {'empty' if not text else 'no line of text'}")
    return text


def gce_token(ask: Callable[[str], str], audience: str, path: Path, write: Callable[[Path, bytes, int], None]) -> str:
    """A token of Google's metadata server, which `ask` asks for a path; written to `path` too, for who reads it there.

    Raises IdentityError: unlike a missing file, this fails the call (as in Istio).
    """
    token = ask(GCE_PATH.format(audience=audience)).strip()
    if not token or not token.isprintable():
        raise IdentityError("token", "Google's metadata server gave no token for this instance's service account")
    try:
        write(path, token.encode(), GCE_FILE_MODE)
    except OSError:
        pass  # nobody may want it there; the call has its token
    return token


def expiry_of(token: str) -> float | None:
    """`exp` of a JWT in seconds since 1970, unverified; None for what is none, or does not say."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        at = float(claims["exp"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return at if 0 <= at < YEAR_10000 else None  # NaN too is none
