"""Who may use the admin port: whoever shows its token.

The token is compared in constant time and only ever as a digest, so neither its content nor its length shows. Wrong
guesses are answered late once there have been some, whoever they come from; the right token never waits.

Left out: roles. One token opens everything but the health checks.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Callable
from typing import Final

from gateway.config.secrets import Secret

FREE_FAILURES: Final = 5  # a person mistyping
FORGET_S: Final = 60.0  # a failure counts for so long
DELAY_S: Final = 1.0
MAX_WAITING: Final = 64  # answers held back at once; above that they go out at once
_SCHEME: Final = "bearer "


class TokenGate:
    """Admits requests with the token that `token` gives; None admits nobody."""

    def __init__(
        self, token: Callable[[], Secret | None], now_s: Callable[[], float], delay_s: float = DELAY_S
    ) -> None:
        self._token = token
        self._now_s = now_s
        self._delay_s = delay_s
        self._failures: list[float] = []
        self._waiting = 0
        self.refused = 0

    def admits(self, authorization: str) -> bool:
        """Whether an Authorization header carries the token."""
        token = self._token()
        given = authorization[len(_SCHEME) :] if authorization.lower().startswith(_SCHEME) else ""
        if token is None or not given:
            return False
        return hmac.compare_digest(_digest(given.strip()), _digest(token.reveal()))

    async def refuse(self) -> None:
        """Note a request without the token, and hold its answer back when there were many."""
        now_s = self._now_s()
        self.refused += 1
        self._failures = [at_s for at_s in self._failures[-FREE_FAILURES:] if now_s - at_s < FORGET_S]
        self._failures.append(now_s)
        if len(self._failures) <= FREE_FAILURES or self._waiting >= MAX_WAITING:
            return
        self._waiting += 1
        try:
            await asyncio.sleep(self._delay_s)
        finally:
            self._waiting -= 1


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()
