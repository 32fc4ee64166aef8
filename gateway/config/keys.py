"""Callers' keys as the data plane sees them: a digest that finds the key, and what the key says of its holder.

A key's secret is known to its holder alone; here it is a SHA-256 digest from the moment the config is read. That is
enough because keys are random (256 bits from `new_secret`), so there is nothing a slower hash would protect.
"""

import hashlib
import re
import secrets
from typing import Final

import msgspec

from gateway.config.limits import Allowance
from gateway.config.schema import Key

HASHED: Final = "sha256:"
PREFIX: Final = "gw-"
_HASH: Final = re.compile(r"sha256:[0-9a-f]{64}\Z")
_SECRET_BYTES: Final = 32  # 43 characters


class KeyRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One key. `expires_ms` is wall-clock milliseconds since the epoch, 0 for never."""

    digest: bytes
    id: str
    org: str = ""
    team: str = ""
    user: str = ""
    labels: dict[str, str] = {}
    models: tuple[str, ...] = ("*",)
    disabled: bool = False
    expires_ms: int = 0
    edited: bool = False  # made while running, not by a config
    allowance: Allowance | None = None  # the short forms of limits; None for none
    role: str = ""
    data_class: str = ""


def new_secret() -> str:
    """A fresh secret: `gw-` and 43 characters that are safe in a URL."""
    return PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def digest(credential: bytes) -> bytes:
    """The 32 bytes by which a credential is known."""
    return hashlib.sha256(credential).digest()


def hashed(secret: str) -> str:
    """The secret as a config may keep it: `sha256:` and 64 hex digits."""
    return HASHED + digest(secret.encode()).hex()


def digest_of(secret: str) -> bytes:
    """The digest of a configured secret, which may be one already. Raises ValueError for a malformed hash."""
    if not secret.startswith(HASHED):
        return digest(secret.encode())
    if not _HASH.match(secret):
        raise ValueError("is not `sha256:` with 64 lowercase hex digits: make one with `gateway keys hash`")
    return bytes.fromhex(secret.removeprefix(HASHED))


def record_of(key: Key) -> KeyRecord:
    """A configured key as its record."""
    return KeyRecord(
        digest=digest_of(key.secret.reveal()),
        id=key.id,
        org=key.org,
        team=key.team,
        user=key.user,
        labels=key.labels,
        models=key.models,
        disabled=key.disabled,
        expires_ms=0 if key.expires_at is None else int(key.expires_at.timestamp() * 1000),
        allowance=key.allowance,
        role=key.role,
        data_class=key.data_class,
    )
