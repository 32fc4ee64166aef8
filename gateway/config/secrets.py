"""Secrets: values that can be used and never read by accident, and the references they are written as.

A config says where a secret is, rarely what it is: `${ENV}` (alone or inside a string), `file:PATH` (first line's
worth, re-read on reload), `credential:NAME` (systemd's $CREDENTIALS_DIRECTORY). A process resolves references when it
loads a config; what is stored in a snapshot is the reference.

Invariants: `repr`, `str` and formatting of a Secret show three stars and a fingerprint, so a log line, a traceback
or an error can carry the object; the plaintext leaves through `reveal()` alone, which is easy to search for. An empty
secret is never a secret: a variable that is set to nothing is reported like one that is missing.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn

import msgspec

MAX_SECRET_BYTES: Final = 64 * 1024  # a path that points at a log or a device must not be swallowed whole
_VARIABLE: Final = re.compile(r"(\$\$\{)|\$\{([^}]*)\}")  # the first is an escape
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_FILE: Final = "file:"
_CREDENTIAL: Final = "credential:"
_CREDENTIALS_DIRECTORY: Final = "CREDENTIALS_DIRECTORY"


class Secret:
    """A plaintext that shows itself only through `reveal()`; `reference` is how the config spelled it, if it did."""

    __slots__ = ("_value", "reference")

    def __init__(self, value: str, reference: str = "") -> None:
        self._value = value
        self.reference = reference

    def reveal(self) -> str:
        """The plaintext. Callers hand it to the wire or to a digest, and keep it nowhere."""
        return self._value

    @property
    def fingerprint(self) -> str:
        """Eight hex digits that tell two secrets apart in a log, and are too few to search for one by."""
        return hashlib.sha256(self._value.encode()).hexdigest()[:8]

    def __repr__(self) -> str:
        return f"Secret(*** {self.fingerprint})"

    def __str__(self) -> str:
        return f"*** {self.fingerprint}"

    def __format__(self, _spec: str) -> str:
        return str(self)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled: store its reference")


class UnresolvedSecret(Exception):
    """A reference that leads to nothing usable; the message names what is missing and the fix, never a value."""


class Surroundings(msgspec.Struct, frozen=True):
    """What references are resolved against: the environment, and the directory that relative paths start from."""

    env: Mapping[str, str]
    directory: Path


def is_reference(text: str) -> bool:
    """Whether the text leads elsewhere, so that showing it shows no secret."""
    return text.startswith((_FILE, _CREDENTIAL)) or any(not found[1] for found in _VARIABLE.finditer(text))


def resolve(text: str, at: Surroundings) -> Secret:
    """The secret a config value stands for. Raises UnresolvedSecret naming the variable, file or credential."""
    if text.startswith(_FILE):
        path = Path(text.removeprefix(_FILE)).expanduser()
        return Secret(_read(at.directory / path, f"file {path}"), text)
    if text.startswith(_CREDENTIAL):
        return Secret(_credential(text.removeprefix(_CREDENTIAL), at.env), text)
    value = expand(text, at.env)
    if not value:
        raise UnresolvedSecret("it is empty: give a value, `${ENV}`, `file:PATH` or `credential:NAME`")
    return Secret(value, text if value != text else "")


def expand(text: str, env: Mapping[str, str]) -> str:
    """The text with every `${NAME}` replaced and every `$${` as `${`.

    Raises UnresolvedSecret for a missing, empty or misspelled name.
    """
    return _VARIABLE.sub(lambda found: "${" if found[1] else _variable(found[2], env), text)


def _variable(name: str, env: Mapping[str, str]) -> str:
    if not _NAME.match(name):
        raise UnresolvedSecret(f"`${{{name}}}` is not the name of an environment variable: write `${{NAME}}`")
    value = env.get(name)
    if value is None:
        raise UnresolvedSecret(f"environment variable {name} is not set: export {name} before starting the gateway")
    if not value:
        raise UnresolvedSecret(f"environment variable {name} is set but empty: give {name} a value")
    return value


def _credential(name: str, env: Mapping[str, str]) -> str:
    directory = env.get(_CREDENTIALS_DIRECTORY)
    if not directory:
        raise UnresolvedSecret(
            f"credential {name} needs systemd: ${_CREDENTIALS_DIRECTORY} is not set; add `LoadCredential={name}:…` "
            "to the unit, or use `file:PATH`"
        )
    if not name or "/" in name or name in (".", ".."):
        raise UnresolvedSecret(f"credential name {name!r} must be a plain file name, as in `LoadCredential=`")
    return _read(Path(directory) / name, f"credential {name}")


def _read(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise UnresolvedSecret(f"{what} cannot be read: {error.strerror or error}") from error
    if len(raw) > MAX_SECRET_BYTES:
        raise UnresolvedSecret(f"{what} is larger than {MAX_SECRET_BYTES} bytes: this cannot be a secret")
    try:
        value = raw.decode().strip("\r\n")
    except UnicodeDecodeError as error:
        raise UnresolvedSecret(f"{what} is not UTF-8 text") from error
    if not value:
        raise UnresolvedSecret(f"{what} is empty")
    return value
