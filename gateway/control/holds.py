"""Legal holds: while one covers a time, no segment with a record of that time is dropped, whatever else is configured.

    <state_dir>/journal/holds.json      [{"id","why","actor","at_us","from_us","to_us","org"?}, …]

The file is the truth, replaced as a whole; every change is an admin record as well. A hold is in force before it is
recorded, and its release is recorded before it ends, so that a crash in between keeps too much and never too little.
A file that cannot be read holds everything. A hold for one organisation holds whole segments too, since the records of
all stand in the same ones; and nobody's personal data that a hold may want is erased (`blocks_erasure`).

Left out: finding the segments of a time (`retention.py`).
"""

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from gateway.config.files import replacing
from gateway.record import Kind, Record

FILE_NAME: Final = "holds.json"
FOREVER_US: Final = 253_402_300_799_999_999  # the last microsecond of the year 9999
MAX_TEXT: Final = 1_000  # characters of a reason or a name
_ID_BYTES: Final = 4


class HoldsUnreadable(Exception):
    """The holds there may be cannot be told; the message names the file and the fix."""


class HoldRefused(ValueError):
    """What was asked for makes no hold, or releases none; the message says why."""


class UnknownHold(HoldRefused):
    """There is no hold with this id."""


class Hold(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One hold: who asked for it, when and why, and the time it covers, both ends included."""

    id: str
    why: str
    actor: str
    at_us: int
    from_us: int
    to_us: int
    org: str = ""  # "": everybody's

    def covers(self, from_us: int, to_us: int) -> bool:
        """Whether it covers any moment of that time, both ends included."""
        return self.from_us <= to_us and from_us <= self.to_us


_decode: Final = msgspec.json.Decoder(tuple[Hold, ...]).decode


class Holds:
    """The holds of one journal. `append` puts a record into it, and raises OSError when it cannot."""

    def __init__(self, journal: Path, append: Callable[[Record], None], now_us: Callable[[], int]) -> None:
        self.path: Final = journal / FILE_NAME
        self._append = append
        self._now_us = now_us
        self._busy = threading.Lock()

    def all(self) -> tuple[Hold, ...]:
        """Every hold in force, oldest first. Raises HoldsUnreadable."""
        return read(self.path.parent)

    @contextmanager
    def standing(self) -> Iterator[tuple[Hold, ...]]:
        """Every hold in force, for as long as the block lasts: none is added or released meanwhile."""
        with self._busy:
            yield self.all()

    def add(self, why: str, actor: str, *, from_us: int = 0, to_us: int = FOREVER_US, org: str = "") -> Hold:
        """Hold a time from now on. Raises HoldRefused, HoldsUnreadable, OSError (it may be in force: see `all`)."""
        _check(why, actor, org)
        if not 0 <= from_us <= to_us <= FOREVER_US:
            raise HoldRefused("a hold ends before it begins: give its two times in their order")
        with self._busy:
            now_us = self._now_us()
            hold_id = secrets.token_hex(_ID_BYTES)
            hold = Hold(id=hold_id, why=why, actor=actor, at_us=now_us, from_us=from_us, to_us=to_us, org=org)
            self._write((*self.all(), hold))
            self._append(_record(now_us, "journal.hold", actor, hold))
        return hold

    def release(self, hold_id: str, actor: str) -> Hold:
        """End a hold. Raises UnknownHold, HoldRefused, HoldsUnreadable, OSError (then it is in force)."""
        _check("released", actor, "")
        with self._busy:
            found = {hold.id: hold for hold in self.all()}
            hold = found.pop(hold_id, None)
            if hold is None:
                raise UnknownHold(f"there is no hold {hold_id!r}: see `gateway journal hold list`")
            self._append(_record(self._now_us(), "journal.release", actor, hold))
            self._write(tuple(found.values()))
        return hold

    def _write(self, holds: tuple[Hold, ...]) -> None:
        with replacing(self.path) as file:
            file.write(msgspec.json.format(msgspec.json.encode(holds), indent=2) + b"\n")


def read(journal: Path) -> tuple[Hold, ...]:
    """The holds of a journal, for who changes none. Raises HoldsUnreadable."""
    path = journal / FILE_NAME
    try:
        return _decode(path.read_bytes())
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HoldsUnreadable(f"{path} cannot be read ({error}): nothing is dropped until it is mended") from error


def blocks_erasure(hold: Hold, org: str) -> bool:
    """Whether a hold may want personal data of an organisation kept: its own, and one that is for everybody."""
    return hold.org in ("", org)


def _check(why: str, actor: str, org: str) -> None:
    if not why.strip() or not actor.strip():
        raise HoldRefused("a hold needs a reason, and the name of who asks for it")
    if max(len(why), len(actor), len(org)) > MAX_TEXT:
        raise HoldRefused(f"a reason or a name may have {MAX_TEXT} characters")


def _record(now_us: int, action: str, actor: str, hold: Hold) -> Record:
    detail = msgspec.json.encode(hold).decode()
    return Record(Kind.ADMIN, "", now_us, action=action, subject=hold.id, actor=actor, detail=detail)
