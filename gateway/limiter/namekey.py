"""The key of people's names: what stands for users and end users in the names of buckets is a digest under it.

Names of buckets reach the journal, its exports and a store. A digest that anybody can compute is as good as the name to
whoever has a list of names to try, so its key is a secret: `limits.secret`, which nodes that share a store must have in
common; else, without a store, random bytes of this node. With a store and no secret it is the domain, which is no
secret at all, but the only thing that nodes without one are known to share: `settle_on` warns of it.

    <state_dir>/limits.key      `<source> <key in hex>`, a line; 0600

The process that starts the node writes the file, workers and control read it: so all of them have the same key until
the next start, whatever a reload says. Whose names have another key than before are other people: what was used per
user is forgotten. Nothing but the file knows a node's random key, so it belongs into a backup of `state_dir`.

Left out: the digest (`rules.py`).
"""

import logging
import os
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple

from gateway.config.files import private_directory, replacing
from gateway.config.limits import Limits

FILE: Final = "limits.key"
KEY_BYTES: Final = 32
MAX_KEY_BYTES: Final = 64  # of blake2b
_SECRET, _RANDOM, _DOMAIN = "secret", "random", "domain"
_SOURCES: Final = frozenset({_SECRET, _RANDOM, _DOMAIN})
_PEOPLE: Final = frozenset({"user", "end_user"})
_PURPOSE: Final = b"limit names"  # a secret that is used elsewhere as well makes another key there
_log: Final = logging.getLogger("gateway.limits")


class NoNameKey(Exception):
    """The file is missing, damaged or cannot be read; the message says what to do."""


class _Known(NamedTuple):
    source: str
    key: bytes


def settle_on(limits: Limits, state_dir: Path) -> None:
    """Write down the key that this node counts people with until its next start. Raises OSError."""
    path = private_directory(state_dir) / FILE
    known, wanted = _read(path), _said(limits)
    if wanted is None:
        if known is None and path.exists():
            _log.warning("limits: %s is damaged and made anew: what was used per user is forgotten", path)
        kept = known is not None and known.source == _RANDOM
        wanted = known if kept and known is not None else _Known(_RANDOM, os.urandom(KEY_BYTES))
    if wanted != known:
        with replacing(path) as file:
            file.write(f"{wanted.source} {wanted.key.hex()}\n".encode())
    if wanted.source == _DOMAIN and (rules := [rule.name for rule in limits.rules if _PEOPLE.intersection(rule.per)]):
        _log.warning(
            "limits: names of people can be guessed from the journal and the store, as limits.secret is not set (%s): "
            "give all nodes of the store the same one",
            ", ".join(rules),
        )


def name_key(state_dir: Path) -> bytes:
    """The key that was settled on. Raises NoNameKey."""
    path = state_dir / FILE
    try:
        known = _read(path)
    except OSError as error:
        raise NoNameKey(f"{path} cannot be read: {error.strerror or error}: the gateway's user must own it") from error
    if known is None:
        raise NoNameKey(f"{path} is missing or damaged: a restart of the node writes it anew")
    return known.key


def _said(limits: Limits) -> _Known | None:
    """The key that the config comes to; None: this node's own."""
    if limits.secret is not None:
        return _Known(
            _SECRET, blake2b(limits.secret.reveal().encode(), digest_size=KEY_BYTES, person=_PURPOSE).digest()
        )
    return None if limits.store_url is None else _Known(_DOMAIN, limits.domain.encode()[:MAX_KEY_BYTES])


def _read(path: Path) -> _Known | None:
    """What the file says, None where it is missing or is not as we write it. Raises OSError."""
    try:
        source, text = path.read_text(encoding="ascii").split()
        key = bytes.fromhex(text)
    except (FileNotFoundError, ValueError):
        return None
    return _Known(source, key) if source in _SOURCES and 0 < len(key) <= MAX_KEY_BYTES else None
