"""What there is of a journal at one moment, so that one that is written and shortened meanwhile can be checked.

Invariants: the manifests are those of before the sizes, so whatever they say is signed is in the files; of a chain the
newest size is taken first, so where a segment holds anything those before it are whole; no floor was signed between
the manifests and the sizes, so what is missing below it was not dropped just now. Left out: what is dropped later.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from gateway.journal import layout
from gateway.journal.manifestscan import ManifestScan

_ATTEMPTS: Final = 5  # a floor is signed once a second at most

Sizes = Mapping[int, int]


class Moment(NamedTuple):
    """The manifests, and of each chain the bytes of every segment that holds any."""

    manifests: ManifestScan
    sizes: Mapping[str, Sizes]


def take(journal: Path, pause: Callable[[float], None] = time.sleep) -> Moment:
    """What there is now. Raises OSError, when files go away between being found and being looked at."""
    manifests = ManifestScan(journal, pause)
    for _ in range(_ATTEMPTS):
        moment, now = Moment(manifests, _sizes(journal)), ManifestScan(journal, pause)
        if _floors(manifests) == _floors(now):
            return moment
        manifests = now
    return Moment(manifests, _sizes(journal))


def _sizes(journal: Path) -> dict[str, Sizes]:
    return {chain: _sizes_of(journal, chain) for chain in layout.chains(journal)}


def _sizes_of(journal: Path, chain: str) -> Sizes:
    """The next segment is made before it is needed, and empty until then; a repair may leave empty ones behind."""
    found = reversed(layout.segments(journal, chain))
    sizes = {segment: layout.segment_path(journal, chain, segment).stat().st_size for segment in found}
    return {segment: size for segment, size in sizes.items() if size}


def _floors(manifests: ManifestScan) -> object:
    newest = manifests.newest
    return newest and (newest.manifest.floors, newest.manifest.manifest_floor)
