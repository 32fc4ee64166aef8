"""Who is calling: a credential's digest finds its key, and the key says whom it speaks for.

Invariants: no plaintext comes here, only digests; what can change between two requests (time, revocation) is looked at
on every request, what cannot (the snapshot's keys) may be remembered. An Identity belongs to one snapshot and is
dropped with it, so nothing cached outlives the keys it came from.
"""

from typing import Final

import msgspec

from gateway.config import patterns
from gateway.config.keyindex import KeyIndex
from gateway.config.keys import KeyRecord
from gateway.config.limits import Allowance
from gateway.errors import InvalidCredential, KeyDisabled, KeyExpired

CACHED: Final = 4096
_EVERY_MODEL: Final = "*"


class Principal(msgspec.Struct, frozen=True, gc=False):
    """Whom a request speaks for.

    `models` are the patterns of what it may use, `allowance` the key's own limits, `data_class` what the key declares.
    """

    key_id: str
    org: str = ""
    team: str = ""
    user: str = ""
    role: str = ""
    labels: dict[str, str] = {}
    data_class: str = ""
    models: tuple[str, ...] = (_EVERY_MODEL,)
    allowance: Allowance | None = None

    def allows(self, model: str) -> bool:
        """Whether this key may use the model of that name."""
        if _EVERY_MODEL in self.models:
            return True
        return any(patterns.matches(pattern, model) for pattern in self.models)


class Identity:
    """The keys of one snapshot, answering who a credential is."""

    def __init__(self, keys: KeyIndex) -> None:
        self._keys = keys
        self._revoked = keys.revoked
        self._cache: dict[bytes, tuple[Principal, KeyRecord]] = {}

    def authenticate(self, digest: bytes, now_ms: int) -> Principal:
        """The Principal of a credential, given as its digest, at a moment (wall-clock milliseconds since the epoch).

        Raises InvalidCredential, KeyDisabled or KeyExpired.
        """
        principal, record = self._cache.get(digest) or self._look_up(digest)
        if record.disabled or record.id in self._revoked:
            raise KeyDisabled("This API key has been disabled. Ask whoever runs the gateway for another one.")
        if record.expires_ms and now_ms >= record.expires_ms:
            raise KeyExpired("This API key has expired. Ask whoever runs the gateway for another one.")
        return principal

    def _look_up(self, digest: bytes) -> tuple[Principal, KeyRecord]:
        record = self._keys.find(digest)
        if record is None:
            raise InvalidCredential("The API key is not one of this gateway's keys.")
        entry = (principal_of(record), record)
        if len(self._cache) >= CACHED:
            self._cache.clear()  # simpler than ranking, and filling it again costs 2 µs a key
        self._cache[digest] = entry
        return entry


def principal_of(record: KeyRecord) -> Principal:
    """Whom a key speaks for."""
    return Principal(
        record.id,
        record.org,
        record.team,
        record.user,
        record.role,
        record.labels,
        record.data_class,
        record.models,
        record.allowance,
    )
