"""Whose signatures count: the keys that a verifier was given, and those that they hand over to.

Models a walk along the manifests in order. A key that is trusted vouches for what it signed, for the key that it names
as its next, and, because every manifest holds the hash of the one before it, for everything before. So with an old key
the newer ones are believed through the manifests that changed keys; with a new one the older manifests are believed
because the new key signed the manifest that it took over with.

Invariants: a signature by a key that is known and does not fit is a finding, wherever it stands; what no trusted key
vouches for by the end is one too. Left out: that keys change only where the manifests say so (`manifest.fault_after`).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from gateway.journal.findings import Fault, Finding, ManifestReport
from gateway.journal.manifest import Manifest, is_handed_over, is_signed
from gateway.journal.signing import KEY_BYTES, SigningError, key_id_of, public_keys, verify_signature
from gateway.record import Record

_HEX_DIGITS: Final = 2 * KEY_BYTES
_MAX_FILE_BYTES: Final = 1024 * 1024
_MAX_WAITING: Final = 10_000

Keys = dict[str, bytes]


class BadKey(ValueError):
    """What was given names no public key; the message says why and what would."""


def read_keys(given: Iterable[str]) -> Keys:
    """The public keys that these name, by id: hexadecimal digits, a file with a key a line, or a directory of `.pub`.

    Raises BadKey.
    """
    keys = Keys()
    for one in given:
        keys.update(_named(one))
    return keys


def _named(given: str) -> Keys:
    if _is_key(given):
        return _by_id([given])
    path = Path(given)
    try:
        if path.is_dir():
            found = public_keys(path)
        else:
            with path.open("rb") as file:
                found = _by_id(file.read(_MAX_FILE_BYTES).decode("ascii", "replace").split("\n"))
    except (OSError, SigningError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise BadKey(f"{given} is no public key of {_HEX_DIGITS} hexadecimal digits, and no file: {why}") from None
    if not found:
        raise BadKey(f"{given} holds no public key: `gateway audit keys export` prints what belongs there")
    return found


def _by_id(lines: Iterable[str]) -> Keys:
    """The keys of lines that hold one as their last word."""
    words = [line.split()[-1] for line in lines if line.split() and not line.lstrip().startswith("#")]
    return {key_id_of(public): public for public in map(bytes.fromhex, filter(_is_key, words))}


def _is_key(text: str) -> bool:
    return len(text) == _HEX_DIGITS and set(text) <= set("0123456789abcdef")


def repair_signed_part(node: str, chain: str, record: Record) -> bytes:
    """What the signature of a repair is over."""
    return b"gateway repair 1\n" + f"{node}\n{chain}\n{record.prev}\n{record.detail}".encode()


class _Repair(NamedTuple):
    """A repair whose key is not known yet."""

    finding: Finding
    signed: bytes
    signature: str
    key: str


class Trust:
    """What the keys at hand vouch for. Without any, nothing is said of signatures, only of their absence."""

    def __init__(self, keys: Keys, report: ManifestReport) -> None:
        self.known = dict(keys)
        self.blind = not keys
        self._report = report
        self._first = -1  # the first manifest that nobody vouches for yet
        self._waiting = 0
        self._repairs: list[_Repair] = []

    def judge(self, manifest: Manifest, line: bytes) -> str:
        """Why this manifest, the next in order, is not to be believed; "" when it may be, or that will show later."""
        self._seen(manifest.key)
        if self.blind:
            return ""
        public, following = self.known.get(manifest.key), manifest.next
        if public is not None:
            if not is_signed(manifest, line, public):
                return f"its signature is not one of key {manifest.key}"
        elif following is None or following.key not in self.known:
            self._wait(manifest)
            return ""
        elif self.known[following.key].hex() != following.public or not is_handed_over(manifest, line):
            return f"it hands over to key {following.key}, which did not sign it"
        if following is not None:
            self.known.setdefault(following.key, bytes.fromhex(following.public))
        self._report.signatures += 1
        self._report.vouched += self._waiting
        self._first, self._waiting = -1, 0
        return ""

    def believes(self, manifest: Manifest, line: bytes) -> bool:
        """Whether a manifest, in whatever order, is signed by a key that is known; without keys every one is."""
        public = self.known.get(manifest.key)
        return self.blind or (public is not None and is_signed(manifest, line, public))

    def repair(self, finding: Finding, record: Record, node: str) -> Finding | None:
        """Judge a repair: `finding` comes back if its signature is wrong. One by a key not known yet waits for it."""
        signed = repair_signed_part(node, finding.chain, record)
        public = self.known.get(record.signed_by)
        if public is not None:
            return None if _fits(public, signed, record.signature) else finding
        if len(self._repairs) < _MAX_WAITING:
            self._repairs.append(_Repair(finding, signed, record.signature, record.signed_by))
            return None
        return finding

    def doubts(self, *, dropped: bool, broke: bool) -> tuple[list[Finding], list[str]]:
        """Once everything was read: what no trusted key vouches for, and what is only worth a note.

        `dropped`: older manifests were dropped, so there may have been keys that nothing here names any more. `broke`:
        there are manifests that were not judged, because one before them is wrong.
        """
        findings, notes = list[Finding](), list[str]()
        if self._first >= 0 and not broke:
            findings.append(
                Finding(
                    fault=Fault.KEY,
                    manifest=self._first,
                    message=f"the manifests from here on are signed by keys that you did not name, the last of them "
                    f"by {self._report.keys[-1]}",
                )
            )
        for repair in self._repairs:
            public = self.known.get(repair.key)
            if public is None and (dropped or repair.key in self._report.keys):
                if not self.blind:
                    notes.append(
                        f"{repair.finding.where}: a repair is signed by key {repair.key}: name it to check that"
                    )
            elif public is None or not _fits(public, repair.signed, repair.signature):
                findings.append(repair.finding)
        return findings, notes

    def _seen(self, key: str) -> None:
        if not self._report.keys or self._report.keys[-1] != key:
            self._report.keys.append(key)

    def _wait(self, manifest: Manifest) -> None:
        if self._first < 0:
            self._first = manifest.n
        self._waiting += 1


def _fits(public: bytes, signed: bytes, signature: str) -> bool:
    try:
        return verify_signature(public, signed, bytes.fromhex(signature))
    except ValueError:
        return False
