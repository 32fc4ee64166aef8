"""Bytes that a repair set aside: are they still what the repair says they were?

A chain keeps them as `torn-<segment>-<offset>`, told by a `repaired` record that holds their SHA-256; the manifests as
`torn-<file>-<offset>-<8 digits of their SHA-256>`. They are no part of the journal any more, only evidence of a crash;
so what is missing is not missed, and what is there must not have been changed. Left out: files whose repair is not
told yet (`.new`, `.draft`), which the next start deals with.
"""

import re
from collections.abc import Container, Iterator
from hashlib import file_digest
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from gateway.journal.findings import Fault, Finding
from gateway.journal.layout import MANIFESTS
from gateway.record import Record

_OF_CHAIN: Final = re.compile(r"torn-([0-9]{1,10})-([0-9]{1,18})(?:\.[0-9]+)?")
_OF_MANIFESTS: Final = re.compile(r"torn-[0-9]+-[0-9]+-([0-9a-f]{8})")


class _Said(msgspec.Struct):
    """As much as is needed of what a `repaired` record says."""

    offset: int
    cut_sha256: str
    signed_lost: int = 0


_said: Final = msgspec.json.Decoder(_Said).decode


class Cut(NamedTuple):
    """What a repair says it cut. `signed_lost`: lines that had been signed and are gone."""

    segment: int
    offset: int
    digest: str
    signed_lost: int = 0


def cut_of(record: Record) -> Cut:
    """The cut that a `repaired` record tells of; one that fits nothing when it cannot be understood."""
    try:
        said = _said(record.detail)
        return Cut(int(record.subject.rpartition("/")[2]), said.offset, said.cut_sha256, said.signed_lost)
    except (ValueError, RecursionError):
        return Cut(0, -1, "")


def changed(journal: Path, chain: str, cuts: Container[tuple[int, int, str]], oldest: int) -> Iterator[Finding]:
    """What a chain set aside since segment `oldest`, and is not what its repairs say. Raises OSError."""
    for path in sorted((journal / chain).glob("torn-*")):
        named = _OF_CHAIN.fullmatch(path.name)
        if named is None or int(named[1]) < oldest:
            continue
        segment, offset = int(named[1]), int(named[2])
        if (segment, offset, _digest_of(path)) not in cuts:
            message = f"{path.name} is not what a repair says was set aside there"
            yield Finding(fault=Fault.TORN, message=message, chain=chain, segment=segment, offset=offset)


def changed_manifests(journal: Path) -> Iterator[Finding]:
    """What was set aside of the manifests, and changed since. Raises OSError."""
    for path in sorted((journal / MANIFESTS).glob("torn-*")):
        named = _OF_MANIFESTS.fullmatch(path.name)
        if named is not None and not _digest_of(path).startswith(named[1]):
            yield Finding(fault=Fault.TORN, message=f"{MANIFESTS}/{path.name} is not what was set aside there")


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
