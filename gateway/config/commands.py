"""`gateway keys hash | new | revoke`: what an operator does with callers' keys at a shell.

They need no running gateway, no database, and no provider's secret: a config whose variables are not set in this
shell is still good enough to find the state directory, because revoking must work where and when it is needed.
"""

import getpass
import sys
from collections.abc import Callable
from collections.abc import Sequence as Given
from contextlib import suppress
from typing import Final, TextIO

from gateway.config.keys import HASHED, hashed, new_secret
from gateway.config.load import skim
from gateway.config.problems import ConfigProblems, did_you_mean
from gateway.config.revocations import Revocations
from gateway.config.snapshot import SnapshotStore, SnapshotUnusable

DONE: Final = 0
REFUSED: Final = 1
_STDIN: Final = "-"


def keys_hash(secret: str | None, out: TextIO, ask: Callable[[], str] | None = None) -> int:
    """Print `sha256:<hex>` of a secret; None or `-` reads it from standard input, without echo on a terminal."""
    if secret is None or secret == _STDIN:
        secret = (ask or _ask)()
    secret = secret.strip()
    if not secret or secret.startswith(HASHED):
        out.write("there is nothing to hash: give the secret itself\n" if not secret else "this is a hash already\n")
        return REFUSED
    out.write(f"{hashed(secret)}\n")
    return DONE


def keys_new(out: TextIO) -> int:
    """Print a fresh secret, and the hash to keep in its place."""
    secret = new_secret()
    out.write(f"key:  {secret}\nhash: {hashed(secret)}\n")
    return DONE


def keys_revoke(
    key_id: str, config_path: str, overrides: Given[str], out: TextIO, *, now_ms: int, force: bool = False
) -> int:
    """Refuse a key from now on, in every worker within a second, and after every restart.

    An id that neither the config nor the current snapshot knows is most likely a misspelling, and the key meant
    would go on working: it is refused unless `force`.
    """
    try:
        found = skim(config_path, overrides)
    except ConfigProblems as error:
        out.write(f"{error}\n")
        return REFUSED
    known = {*found.key_ids, *_published(found.state_dir)}
    if key_id not in known and not force:
        out.write(f"no key has the id {key_id!r}{did_you_mean(key_id, known)} (--force revokes it all the same)\n")
        return REFUSED
    revocations = Revocations(found.state_dir)
    try:
        already = key_id in revocations.read()
        if not already:
            revocations.add(key_id, now_ms)
    except OSError as error:
        out.write(f"{revocations.path} cannot be written: {error.strerror}; the key is NOT revoked\n")
        return REFUSED
    out.write(f"key {key_id} {'was revoked already' if already else 'is revoked'}\n")
    return DONE


def _published(state_dir: str) -> set[str]:
    store = SnapshotStore(state_dir)
    with suppress(SnapshotUnusable, OSError):
        current = store.current()
        if current is not None:
            return {record.id for record in store.keys(current)}
    return set()


def _ask() -> str:
    if sys.stdin.isatty():
        return getpass.getpass("key (not shown): ")
    return sys.stdin.readline()
