"""`gateway init` and `gateway keys`: making secrets, hashing them, and taking keys away."""

import getpass
import sys
import time
from collections.abc import Sequence
from typing import Final

from gateway.config import starter
from gateway.config.keys import hashed, new_secret
from gateway.config.load import load
from gateway.config.problems import ConfigProblems
from gateway.config.revocations import Revocations
from gateway.config.schema import Config
from gateway.config.snapshot import SnapshotStore
from gateway.units import NS_PER_MS

_FROM_INPUT: Final = "-"


def init(path: str) -> int:
    """Write a first config; refuses to replace one."""
    try:
        made = starter.init(path)
    except FileExistsError:
        print(f"gateway: {path} exists already: remove it first, or name another file", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"gateway: {path} cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    print(f"wrote {made.path}: model {made.model}, one key, one admin token; start with: gateway serve --config {path}")
    return 0


def new() -> int:
    """Print a new secret and its hash."""
    secret = new_secret()
    print(f"secret  {secret}\nhash    {hashed(secret)}")
    return 0


def hash_of(secret: str) -> int:
    """Print the hash of a secret, given as a word or typed unseen."""
    if secret == _FROM_INPUT:
        secret = getpass.getpass("secret: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    if not secret:
        print("gateway: an empty secret cannot be hashed", file=sys.stderr)
        return 1
    print(hashed(secret))
    return 0


def revoke(key_id: str, path: str, overrides: Sequence[str]) -> int:
    """Revoke a key by writing to the state directory: it acts with control, database and gateway down alike."""
    try:
        config = load(path, overrides)
    except ConfigProblems as problems:
        print(problems, file=sys.stderr)
        return 1
    if not _exists(config, key_id):
        print(f"gateway: no key with the id {key_id!r} in {path} or in {config.state_dir}", file=sys.stderr)
        return 1
    try:
        Revocations(config.state_dir).add(key_id, time.time_ns() // NS_PER_MS)
    except OSError as error:
        print(f"gateway: {config.state_dir} cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    print(f"revoked {key_id}: a running gateway refuses it within a second, and so does every later start")
    return 0


def _exists(config: Config, key_id: str) -> bool:
    if any(key.id == key_id for key in config.keys):
        return True
    store = SnapshotStore(config.state_dir)
    generation = store.current()
    return generation is not None and any(record.id == key_id for record in store.keys(generation))
