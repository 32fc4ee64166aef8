"""A question about usage: which hours, whose, by what; as it is written in a query, and checked word by word.

`from` and `to` are moments: `2026-11-21`, `2026-11-21T14:00:00Z`, seconds since the epoch, `7d` (ago; s, m, h, d, w) or
`now`. The table knows whole hours, UTC, so `from` is taken back to the hour's beginning and `to` on to its end; the
answer says which hours it is of.

`after` is opaque: what the last page ended with, the hours it was of, and a digest of the rest of the question, so
that pages of two questions are never mixed up. Pure: the time is given.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from gateway.control.usage_fields import DAY_S, DIMENSIONS, HOUR_S, TIMES, clean

Value = str | int
"""What a row is grouped by: a text, or the beginning of an hour or a day."""

DEFAULT_LIMIT: Final = 1_000
MAX_LIMIT: Final = 10_000
DEFAULT_S: Final = 30 * DAY_S
ORDERS: Final = ("name", "cost")
FORMATS: Final = ("json", "csv")
BY: Final = (*DIMENSIONS, *TIMES)
NAMES: Final = ("from", "to", "by", "order", "limit", "after", "format", *DIMENSIONS)

_MAX_VALUES: Final = 100
_MAX_NUMBER: Final = 2**63
_LAST_S: Final = 253_402_300_800  # the year 10000
_AGO: Final = re.compile(r"([0-9]{1,9})([smhdw])")
_AGO_S: Final = {"s": 1, "m": 60, "h": HOUR_S, "d": DAY_S, "w": 7 * DAY_S}
_SECONDS: Final = re.compile(r"[0-9]{9,12}")


class BadQuestion(ValueError):
    """The question makes no sense; the message says which word, and what would."""


class Question(NamedTuple):
    """What is asked: hours from `start` up to `end` (seconds since the epoch), all the named groups' sums."""

    start: int
    end: int
    by: tuple[str, ...] = ()
    where: tuple[tuple[str, tuple[str, ...]], ...] = ()
    order: str = "name"
    limit: int = DEFAULT_LIMIT
    after: tuple[Value, ...] | None = None
    format: str = ""

    def next_after(self, last: Sequence[Value]) -> str:
        """The `after` of the page that follows one which ended so."""
        told = json.dumps([self.start, self.end, self._digest(), *last], separators=(",", ":"))
        return base64.urlsafe_b64encode(told.encode()).decode().rstrip("=")

    def _digest(self) -> str:
        told = json.dumps([self.by, self.where, self.order])
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def going_on(self, after: str, *, timed: bool) -> "Question":
        """This question, from where a page ended; `timed` if it names hours, which must then be the same."""
        try:
            start, end, digest, *last = json.loads(base64.urlsafe_b64decode(after + "=" * (-len(after) % 4)))
        except (ValueError, TypeError, binascii.Error):
            raise BadQuestion("after: it is not what an answer's `next` said") from None
        hours = isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= _LAST_S
        if not hours or [type(value) for value in last] != self._types() or not all(map(_fits, last)):
            raise BadQuestion("after: it is not what an answer's `next` said")
        if digest != self._digest() or (timed and (start, end) != (self.start, self.end)):
            raise BadQuestion("after: it belongs to another question; ask the same one, with `after` added")
        return self._replace(start=start, end=end, after=tuple(last))

    def _types(self) -> list[type]:
        groups: list[type] = [int if name in TIMES else str for name in self.by]
        return [int, *groups] if self.order == "cost" else groups


def parse(query: Iterable[tuple[str, str]], now_s: int) -> Question:
    """The question that a query asks. Raises BadQuestion."""
    given: dict[str, list[str]] = {}
    for name, value in query:
        if name not in NAMES:
            raise BadQuestion(f"{name}: there is no such word; there are {', '.join(NAMES)}")
        given.setdefault(name, []).append(value)
    end = _ceil_hour(moment(_one(given, "to") or "now", now_s, "to"))
    asked_from = _one(given, "from")
    start = moment(asked_from, now_s, "from") // HOUR_S * HOUR_S if asked_from else max(0, end - DEFAULT_S)
    after = _one(given, "after")
    if start >= end:
        raise BadQuestion("from: it must be before `to`")
    question = Question(
        start=start,
        end=end,
        by=_by(_one(given, "by")),
        where=tuple((name, _values(name, given[name])) for name in DIMENSIONS if name in given),
        order=_choice(given, "order", ORDERS) or "name",
        limit=_limit(_one(given, "limit")),
        format=_choice(given, "format", FORMATS),
    )
    if not after:
        return question
    return question.going_on(after, timed="from" in given or "to" in given)


def moment(text: str, now_s: int, name: str) -> int:
    """Seconds since the epoch of a moment as people write it. Raises BadQuestion, which names the word at fault."""
    if text == "now":
        return now_s
    if ago := _AGO.fullmatch(text):
        return max(0, now_s - int(ago[1]) * _AGO_S[ago[2]])
    found = int(text) if _SECONDS.fullmatch(text) else _written(text)
    if found is None or not 0 <= found < _LAST_S - HOUR_S:
        raise BadQuestion(
            f"{name}: {text[:40]!r} is no moment; write 2026-11-21, 2026-11-21T14:00:00Z, seconds since the epoch, "
            "7d (ago; s, m, h, d, w) or now"
        )
    return found


def _written(text: str) -> int | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return int((found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp())


def _ceil_hour(at_s: int) -> int:
    return -(-at_s // HOUR_S) * HOUR_S


def _one(given: dict[str, list[str]], name: str) -> str:
    values = given.get(name, [""])
    if len(values) > 1:
        raise BadQuestion(f"{name}: it is said more than once")
    return values[0]


def _by(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",")) if text else ()
    for name in names:
        if name not in BY:
            raise BadQuestion(f"by: usage is not kept by {name[:40]!r}; it is by {', '.join(BY)}")
    if len(set(names)) < len(names):
        raise BadQuestion("by: a name is said twice")
    return names


def _values(name: str, values: list[str]) -> tuple[str, ...]:
    if len(values) > _MAX_VALUES:
        raise BadQuestion(f"{name}: {len(values)} values are too many; at most {_MAX_VALUES}")
    return tuple(clean(value) for value in values)


def _fits(value: Value) -> bool:
    """Whether a row of the table can end so."""
    return clean(value) == value if isinstance(value, str) else abs(value) < _MAX_NUMBER


def _choice(given: dict[str, list[str]], name: str, choices: Sequence[str]) -> str:
    value = _one(given, name)
    if value and value not in choices:
        raise BadQuestion(f"{name}: {value[:40]!r} is none of {', '.join(choices)}")
    return value


def _limit(text: str) -> int:
    if not text:
        return DEFAULT_LIMIT
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= MAX_LIMIT:  # noqa: PLR2004
        raise BadQuestion(f"limit: {text[:40]!r} is no whole number from 1 to {MAX_LIMIT}")
    return int(text)
