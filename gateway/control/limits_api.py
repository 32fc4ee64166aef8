"""`GET /v1/limits/explain`: why a key is limited, and when its next request gets in.

The words of a question are in `limits_question.py`, what such a request comes to in `limits_case.py`, the answer in
`limits_page.py`. The engine is asked how its buckets stand, and charged nothing. A key is looked for by its id, which
no index knows: that takes a microsecond a key, in a thread, for a few questions at a time.

Errors are the admin API's: 400 for a question that makes no sense, 404 for a key, model or provider that is not there,
503 where what is left is not known. That a request would be refused is an answer, not an error.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

import msgspec
from aiohttp import web

from gateway.config.keyindex import KeyIndex
from gateway.config.keys import PREFIX, KeyRecord
from gateway.config.problems import did_you_mean, printable
from gateway.config.schema import Config
from gateway.control.limits_case import Case, Cases, NotThere
from gateway.control.limits_page import Stands, document, modes, modes_in_words
from gateway.control.limits_question import BadQuestion, parse
from gateway.ledger.prices import PriceList
from gateway.limiter.engine import Reason, Unavailable
from gateway.limiter.explain import Engine, Explained, explain
from gateway.limiter.learned import Learned
from gateway.limiter.lines import Line, Lines
from gateway.limiter.namekey import NoNameKey
from gateway.limiter.outstanding import Outstanding, outstanding
from gateway.limiter.spec import Kind
from gateway.limiter.table import TableEngine
from gateway.units import NS_PER_MS

AT_ONCE: Final = 2
TRIES: Final = 3  # a store that is asked by somebody who has time; its deadline is made for requests
PAUSE_S: Final = 0.02
MAX_NEAR: Final = 2_000  # ids among which a similar one is looked for
_LIKE: Final = 3  # first characters that a similar id shares
_SECRET_CHARACTERS: Final = 40
_encode: Final = msgspec.json.Encoder().encode


class Sources(NamedTuple):
    """Where control has what an answer is made of, each as it is when asked; None for what is not there yet."""

    config: Callable[[], Config | None]
    keys: Callable[[], KeyIndex | None]
    engine: Callable[[], Engine | None]
    prices: Callable[[], PriceList]
    learned: Callable[[], Learned]
    name_key: Callable[[], bytes]  # may raise NoNameKey


class LimitsApi:
    """The handler."""

    def __init__(self, sources: Sources, wall_ms: Callable[[], int] = lambda: time.time_ns() // NS_PER_MS) -> None:
        self._sources = sources
        self._wall_ms = wall_ms
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._cases: tuple[Config, PriceList, Cases] | None = None

    async def explain(self, request: web.Request) -> web.Response:
        """Answer one question."""
        config, keys = self._sources.config(), self._sources.keys()
        if config is None or keys is None:
            return _error(503, "no_snapshot", "no snapshot is in use yet: see the log")
        try:
            question = parse(request.query.items())
            async with self._turns:
                key = await asyncio.to_thread(_find, keys, question.key)
                revoked, now_ms = key.id in keys.revoked, self._wall_ms()
                case = self._compiled(config).of(question, key, revoked=revoked, now_ms=now_ms)
                stands = await self._stands(case, now_ms)
        except BadQuestion as error:
            return _error(400, "invalid_query", str(error))
        except NotThere as error:
            return _error(404, error.code, str(error))
        except NoNameKey as error:
            return _error(503, "limits_unavailable", str(error))
        except _Away as error:
            return _error(503, "limits_unavailable", str(error), limits=modes(error.lines))
        stored = not isinstance(self._sources.engine(), TableEngine)  # as the node was started, whatever is set since
        return _answer(document(case, stands, revoked=revoked, stored=stored, now_ms=now_ms))

    def _compiled(self, config: Config) -> Cases:
        """The cases of this config, remembered until it or the prices change. Raises NoNameKey."""
        known, prices = self._cases, self._sources.prices()
        if known is None or known[0] is not config or known[1] is not prices:
            cases = Cases(config, prices, self._sources.learned(), self._sources.name_key())
            known = self._cases = config, prices, cases
        return known[2]

    async def _stands(self, case: Case, now_ms: int) -> list[Stands]:
        """Every bucket of the case: those of all attempts, then each provider's own. Raises _Away."""
        if case.limits is None:
            return []
        user, providers = case.question.end_user, case.providers or ("",)
        attempts = [(name, case.limits.lines(now_ms, user, name)) for name in providers]
        engine = self._sources.engine()
        try:
            rows = await _rows(engine, case, attempts)
        except Unavailable as error:
            each = (lines.lines[lines.own :] for _, lines in attempts)
            raise _Away(error, [*attempts[0][1].lines[: attempts[0][1].own], *chain.from_iterable(each)]) from error
        return list(zip(rows, await _outstanding(engine, rows), strict=True))


class _Away(Exception):
    """Nobody knows at the moment what is left of these limits."""

    def __init__(self, error: Unavailable, lines: Sequence[Line]) -> None:
        super().__init__(f"what is left of the limits cannot be known now ({error}): {modes_in_words(lines)}")
        self.lines = lines


async def _rows(engine: Engine | None, case: Case, attempts: Sequence[tuple[str, Lines]]) -> list[Explained]:
    """How the buckets of these attempts stand, asked for more than once if need be. Raises Unavailable."""
    if engine is None:
        raise Unavailable(Reason.DOWN, "they are not open here yet")
    for last in (*[False] * (TRIES - 1), True):
        try:
            rows: list[Explained] = []
            for name, lines in attempts:
                first = lines.own if name != attempts[0][0] else 0
                rows += await explain(engine, lines, case.need, name, first)
        except Unavailable as error:
            if last or error.reason is Reason.DOWN:
                raise
            await asyncio.sleep(PAUSE_S)
        else:
            return rows
    raise AssertionError


async def _outstanding(engine: Engine | None, rows: Sequence[Explained]) -> Sequence[Outstanding | None]:
    """What is reserved of each bucket: of slots the level tells it, of others only this node's own table."""
    if isinstance(engine, TableEngine):
        buckets = [(row.line.bucket, row.line.spec) for row in rows]
        found = await asyncio.to_thread(outstanding, engine.table, buckets)
        if found is not None:
            return found
    return [Outstanding(row.capacity - row.level, 0) if row.line.spec.kind is Kind.SLOTS else None for row in rows]


def _find(keys: KeyIndex, key_id: str) -> KeyRecord:
    """The key with this id. Raises NotThere, with an id that is like it if there is one. Blocks."""
    like, others = list[str](), list[str]()
    beginning = key_id[:_LIKE].casefold()
    for record in chain(keys.overlay.added, keys):
        if record.id == key_id:
            return record
        near = like if record.id[:_LIKE].casefold() == beginning else others
        if len(near) < MAX_NEAR:
            near.append(record.id)
    if key_id.startswith(PREFIX) and len(key_id) >= _SECRET_CHARACTERS:
        raise NotThere("key_not_found", "this looks like a key's secret: give its id, which `GET /v1/keys` lists")
    near_id = did_you_mean(key_id, like + others[: MAX_NEAR - len(like)])
    raise NotThere("key_not_found", f"there is no key with the id {printable(key_id)!r}{near_id}")


def _answer(content: object, status: int = 200) -> web.Response:
    return web.Response(body=_encode(content) + b"\n", status=status, content_type="application/json")


def _error(status: int, code: str, message: str, **more: Any) -> web.Response:
    return _answer({"error": {"code": code, "message": message, **more}}, status)
