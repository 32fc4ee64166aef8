"""The journal's part of the admin API: how it is, legal holds, and forgetting people.

    GET  /v1/journal                       how it is (`journal_status.py`)
    GET  /v1/journal/holds                 the holds in force
    POST /v1/journal/holds                 {"why","actor","from_us"?,"to_us"?,"org"?} -> the hold
    POST /v1/journal/holds/{id}/release    {"actor"} -> the hold that was
    POST /v1/journal/erase                 {"org","user"?,"actor"} -> {"keys","usage_rows"}

Everything here waits for the disk, so it is done in threads. Who asks is what the caller says: the admin token tells
nobody from another. Left out: rules of their own; each answer is `holds.py`'s, `erasure.py`'s or the files'.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from gateway.control.erasure import Erasure, ErasureRefused, ErasureUnfinished
from gateway.control.holds import FOREVER_US, HoldRefused, Holds, HoldsUnreadable, UnknownHold
from gateway.control.journal_status import document, lag
from gateway.control.notary import Notary
from gateway.control.readers.runner import Runner
from gateway.control.retention import Retention
from gateway.journal.layout import NoJournal

T = TypeVar("T")
_encode: Final = msgspec.json.Encoder().encode


class HoldAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a new hold is made of."""

    why: str
    actor: str
    from_us: int = 0
    to_us: int = FOREVER_US
    org: str = ""


class ReleaseAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who releases."""

    actor: str


class ErasureAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who is to be forgotten: a user, or without one all users of the organisation."""

    org: str
    actor: str
    user: str = ""


class JournalApi:
    """The handlers, over the parts of a running control."""

    def __init__(
        self,
        state_dir: Path,
        notary: Notary,
        retention: Retention,
        runners: Sequence[Runner],
        holds: Holds,
        erasure: Erasure,
    ) -> None:
        self._state_dir = state_dir
        self._notary = notary
        self._retention = retention
        self._runners = runners
        self._holds = holds
        self._erasure = erasure

    async def status(self, _request: web.Request) -> web.Response:
        """How the journal is."""
        try:
            told = await asyncio.to_thread(document, self._state_dir, self._retention.settings)
        except NoJournal as error:
            return _error(503, "no_journal", str(error))
        told["readers"] = [_reader(runner, lag(told, runner.seqs())) for runner in self._runners]
        told["retention"] |= _retention(self._retention)
        told["problems"] += self._problems()
        return _answer(told)

    async def holds(self, _request: web.Request) -> web.Response:
        """The holds in force."""
        try:
            holds = await asyncio.to_thread(self._holds.all)
        except HoldsUnreadable as error:
            return _error(503, "holds_unreadable", str(error))
        return _answer({"holds": holds})

    async def add_hold(self, request: web.Request) -> web.Response:
        """Hold a time from now on."""
        try:
            asked = await _asked(request, HoldAsked)
            hold = await asyncio.to_thread(
                self._holds.add, asked.why, asked.actor, from_us=asked.from_us, to_us=asked.to_us, org=asked.org
            )
        except (msgspec.DecodeError, HoldRefused) as error:
            return _error(400, "invalid_hold", str(error))
        except HoldsUnreadable as error:
            return _error(503, "holds_unreadable", str(error))
        return _answer(hold)

    async def release_hold(self, request: web.Request) -> web.Response:
        """End a hold."""
        try:
            asked = await _asked(request, ReleaseAsked)
            hold = await asyncio.to_thread(self._holds.release, request.match_info["id"], asked.actor)
        except UnknownHold as error:
            return _error(404, "hold_not_found", str(error))
        except (msgspec.DecodeError, HoldRefused) as error:
            return _error(400, "invalid_release", str(error))
        except HoldsUnreadable as error:
            return _error(503, "holds_unreadable", str(error))
        return _answer(hold)

    async def erase(self, request: web.Request) -> web.Response:
        """Forget people."""
        try:
            asked = await _asked(request, ErasureAsked)
            erased = await asyncio.to_thread(self._erasure.run, asked.org, asked.user, asked.actor)
        except msgspec.DecodeError as error:
            return _error(400, "invalid_erasure", str(error))
        except ErasureRefused as error:
            return _error(409, "erasure_refused", str(error))
        except HoldsUnreadable as error:
            return _error(503, "holds_unreadable", str(error))
        except ErasureUnfinished as error:
            return _error(503, "erasure_unfinished", str(error))
        return _answer(erased._asdict())

    def _problems(self) -> list[str]:
        """What only the running parts know to be wrong."""
        broken = [f"chain {chain} is signed no further: {fault}" for chain, fault in self._notary.broken.items()]
        return [problem for problem in (self._notary.problem, self._retention.failing, *broken) if problem]


def _reader(runner: Runner, lag_records: int) -> dict[str, Any]:
    # The lag is behind what this very document says is signed: while a manifest is on its way to the disk, the notary
    # does not count its lines yet, and "all signed, nothing behind" would be said of two different moments.
    return {
        "name": runner.name,
        "lag_records": lag_records,
        "lag_s": round(runner.lag_s, 3),
        "failing": runner.failing,
        "poisoned": runner.poisoned,
        "missing": runner.missing,
    }


def _retention(retention: Retention) -> dict[str, Any]:
    return {
        "blocked_bytes": retention.blocked_bytes,
        "alarm": retention.alarm,
        "reasons": retention.reasons,
        "dropped_segments": retention.dropped_segments,
        "dropped_bytes": retention.dropped_bytes,
    }


async def _asked(request: web.Request, kind: type[T]) -> T:
    """The body, as what it must be. Raises msgspec.DecodeError."""
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(f"it is not UTF-8: {error}") from error


def _answer(content: object, status: int = 200) -> web.Response:
    return web.Response(body=_encode(content) + b"\n", status=status, content_type="application/json")


def _error(status: int, code: str, message: str) -> web.Response:
    return _answer({"error": {"code": code, "message": message}}, status)
