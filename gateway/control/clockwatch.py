"""Whether to believe the clock when it says that records are old: one that leaps ahead must not cost a journal.

Models the latest time it can be: the latest one that was believed, and what the monotonic clock has counted since. A
clock that is ahead of that by more than LEAP_S (a wrong time server, a battery; but also a machine that slept or was
off) is in doubt. People then have CALM_S to see it and put it right; a clock that has stayed there for so long is
believed.

    <state_dir>/clock      the latest time believed, µs since the epoch, written once an hour

The file is there because all else that a restart could ask, records and manifests, was dated by the same clock.
Invariant: what is believed never goes back, so that a clock put right after it was behind is no leap. A file that is
missing or unreadable says nothing, and then the clock is believed. Left out: a clock that is behind, which keeps
records too long and loses none; `max_bytes`, which asks no clock.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from gateway.config.files import replacing
from gateway.units import US_PER_S

LEAP_S: Final = 86_400.0
CALM_S: Final = 86_400.0
SAVE_S: Final = 3_600.0
_HOUR_S: Final = 3_600


class ClockWatch:
    """Watches one node's clock; `doubt` blocks on the disk now and then, and belongs to one thread."""

    def __init__(
        self, path: Path, clock_us: Callable[[], int], monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._clock_us = clock_us
        self._monotonic_s = monotonic_s
        self._saved_us = _read(path)
        self._offset_us = (self._saved_us or clock_us()) - self._counted_us()  # of the believed time
        self._leapt: tuple[int, float] | None = None  # the offset of a clock in doubt, and since when it has that

    def doubt(self) -> str:
        """Why nothing is to be taken for old now; "" while the clock is believed. Names no number that moves."""
        counted_us = self._counted_us()
        offset_us = self._clock_us() - counted_us
        ahead_us = offset_us - self._offset_us
        if ahead_us > LEAP_S * US_PER_S:
            began_us, since_s = self._leap(offset_us)
            if self._monotonic_s() - since_s < CALM_S:
                hours = (began_us - self._offset_us) // (_HOUR_S * US_PER_S)
                return (
                    f"the clock is {hours} hours ahead of what it was, so nothing counts as too old before it has "
                    f"stayed there for {CALM_S / _HOUR_S:g} hours: see that it is right"
                )
        self._leapt = None
        self._offset_us = max(self._offset_us, offset_us)
        self._save(self._offset_us + counted_us)
        return ""

    def _leap(self, offset_us: int) -> tuple[int, float]:
        """Where the clock has been since when; SAVE_S more or less is the same place."""
        if self._leapt is None or abs(offset_us - self._leapt[0]) > SAVE_S * US_PER_S:
            self._leapt = offset_us, self._monotonic_s()
        return self._leapt

    def _counted_us(self) -> int:
        return int(self._monotonic_s() * US_PER_S)

    def _save(self, believed_us: int) -> None:
        """Keep it for the next start; a disk that refuses is asked again at the next turn, and holds nothing up."""
        if believed_us - self._saved_us < SAVE_S * US_PER_S:
            return
        with suppress(OSError):
            with replacing(self._path) as file:
                file.write(b"%d\n" % believed_us)
            self._saved_us = believed_us


def _read(path: Path) -> int:
    """The time in the file; 0 where there is none to be read."""
    try:
        text = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return 0
    return int(text) if text.isdigit() and len(text) < len(str(1 << 63)) else 0
