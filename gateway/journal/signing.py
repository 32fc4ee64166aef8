"""The keys that sign manifests and repairs: one in use, perhaps one about to follow it, and every public key there was.

    <state_dir>/signing/<key id>.key    the private seed: 64 hex digits, readable by this user only
    <state_dir>/signing/<key id>.pub    the public key: 64 hex digits, to be handed to whoever verifies
    <state_dir>/signing/current         the id of the key in use
    <state_dir>/signing/next            the id of the key that was made to follow it
    <state_dir>/signing/rotate          there: somebody asked for a new key
    <state_dir>/signing/lock            held while any of this is read or changed

A key id is the first 16 hex digits of SHA-256 of the public key, so nobody can choose one. Changing keys takes three
steps, and a crash after any of them is made good by doing them again: `rotate` makes the next key; the notary syncs a
manifest that names it, signed by both; `switch` renames `next` to `current` and only then destroys the old seed.

Invariants: files are whole or not there; two processes that start at once use one key; a seed is destroyed only when
another key is current. Left out: which key to believe, which is for whoever verifies (`verify.py`).
"""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gateway.config.files import FILE_MODE, private_directory, replacing, sync_directory

KEY_BYTES: Final = 32
_CURRENT: Final = "current"
_NEXT: Final = "next"
_ROTATE: Final = "rotate"
_ID_DIGITS: Final = 16
_HEX: Final = frozenset("0123456789abcdef")


class SigningError(Exception):
    """A signing key cannot be used; the message says which, why, and what to do."""


class Signer:
    """A private key in use. Its seed shows in no repr."""

    __slots__ = ("_private", "key_id", "public")

    def __init__(self, seed: bytes) -> None:
        """`seed`: 32 random bytes."""
        self._private: Final = Ed25519PrivateKey.from_private_bytes(seed)
        self.public: Final = self._private.public_key().public_bytes_raw()
        self.key_id: Final = key_id_of(self.public)

    def sign(self, data: bytes) -> bytes:
        """The Ed25519 signature, 64 bytes; about 20 µs."""
        return self._private.sign(data)

    def __repr__(self) -> str:
        return f"Signer({self.key_id})"


def key_id_of(public: bytes) -> str:
    """The name of a public key."""
    return sha256(public).hexdigest()[:_ID_DIGITS]


def verify_signature(public: bytes, data: bytes, signature: bytes) -> bool:
    """Whether the owner of `public` signed this; False as well for what is no key or no signature."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def load_signer(directory: Path) -> Signer:
    """The key in use, made when there has never been one. Raises SigningError.

    Any process may ask at any time: the lock makes two that start together agree, and a change of keys look instant.
    """
    with _locked(directory):
        current = _named(directory, _CURRENT)
        if not current:
            _make_next(directory)
            current = _promote(directory)
        return _read_signer(directory, current)


def has_signer(directory: Path) -> bool:
    """Whether a key is named as the one in use: where none is, `load_signer` makes the first."""
    return (directory / _CURRENT).exists()


def rotate(directory: Path) -> Signer:
    """The key that is to follow: made now, or found where an earlier attempt left it. Raises SigningError."""
    with _locked(directory):
        return _make_next(directory)


def switch(directory: Path, key_id: str) -> Signer:
    """Use this key, which a synced manifest names, from now on; done twice it changes nothing. Raises SigningError."""
    with _locked(directory):
        if _named(directory, _CURRENT) != key_id:
            if _named(directory, _NEXT) != key_id:
                raise SigningError(
                    f"the newest manifest hands over to key {key_id}, and {directory} does not name it as its next: "
                    "restore that directory as it was when the manifest was signed"
                )
            (directory / _ROTATE).unlink(missing_ok=True)  # fulfilled: the next start finishes what a crash leaves
            _promote(directory)
        signer = _read_signer(directory, key_id)
        _destroy_others(directory, key_id)
        return signer


def request_rotation(directory: Path) -> None:
    """Ask whoever signs for a new key; it acts with the next manifest, also when that is after a restart.

    Raises SigningError.
    """
    with _locked(directory), replacing(directory / _ROTATE):
        pass


def rotation_requested(directory: Path) -> bool:
    """Whether somebody asked for a new key, and has none yet."""
    return (directory / _ROTATE).exists()


def public_keys(directory: Path) -> dict[str, bytes]:
    """Every public key there is here by its id; {} where there is no such directory. Raises SigningError."""
    keys = dict[str, bytes]()
    for path in sorted(directory.glob("*.pub")):
        keys[path.stem] = public = read_public(path)
        if key_id_of(public) != path.stem:
            raise SigningError(f"{path} holds key {key_id_of(public)}: restore it from a copy, or remove it")
    return keys


def read_public(path: Path) -> bytes:
    """The public key in a file. Raises SigningError."""
    return _read_hex(path, "a public key")


# --- under the lock -------------------------------------------------------------------------------------------------


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Be the only one here; what the disk refuses meanwhile comes out as a SigningError."""
    try:
        if not directory.is_dir():
            sync_directory(private_directory(directory).parent)
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
    except OSError as error:
        raise SigningError(
            f"signing keys in {directory} cannot be used: {error.strerror or error}: "
            "the gateway's user must be able to read and write there"
        ) from error


def _make_next(directory: Path) -> Signer:
    made = _named(directory, _NEXT)
    if made:
        return _read_signer(directory, made)
    seed = secrets.token_bytes(KEY_BYTES)
    signer = Signer(seed)
    _write(directory / f"{signer.key_id}.key", seed.hex())
    _write(directory / f"{signer.key_id}.pub", signer.public.hex())
    _write(directory / _NEXT, signer.key_id)
    return signer


def _promote(directory: Path) -> str:
    """Make `next` the current key: one rename."""
    (directory / _NEXT).rename(directory / _CURRENT)
    sync_directory(directory)
    return _named(directory, _CURRENT)


def _destroy_others(directory: Path, key_id: str) -> None:
    """Remove every seed but this one and that of a key to come; the public keys stay."""
    kept = {key_id, _named(directory, _NEXT)}
    for path in directory.glob("*.key"):
        if path.stem not in kept:
            path.unlink()
    sync_directory(directory)


def _named(directory: Path, pointer: str) -> str:
    """The key id in a file, "" where there is no such file."""
    path = directory / pointer
    try:
        key_id = path.read_text("ascii", "replace").strip()
    except FileNotFoundError:
        return ""
    if len(key_id) != _ID_DIGITS or not _HEX.issuperset(key_id):
        raise SigningError(f"{path} names no key: restore it from a copy, or write the id of a key that is there")
    return key_id


def _read_signer(directory: Path, key_id: str) -> Signer:
    signer = Signer(_read_hex(directory / f"{key_id}.key", "a private key"))
    if signer.public != read_public(directory / f"{key_id}.pub") or signer.key_id != key_id:
        raise SigningError(
            f"{directory}/{key_id}.key and {key_id}.pub do not belong together: restore both from a copy"
        )
    return signer


def _read_hex(path: Path, what: str) -> bytes:
    try:
        text = path.read_text("ascii", "replace").strip()
    except FileNotFoundError:
        raise SigningError(f"{path} is missing: restore it from a copy") from None
    except OSError as error:
        raise SigningError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(text) != 2 * KEY_BYTES or not _HEX.issuperset(text):
        raise SigningError(f"{path} does not hold {what} of {2 * KEY_BYTES} hexadecimal digits: restore it from a copy")
    return bytes.fromhex(text)


def _write(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode() + b"\n")
