"""Lines like those of a gateway at work: a decision and an outcome an exchange, sealed, with digests.

Everything is made by the gateway's own writer; only the exchanges are invented, from a seed, so that two runs write
the same sizes.
"""

import random
from pathlib import Path
from typing import Final, NoReturn

from gateway.journal import layout
from gateway.journal.journal import Journal, JournalSettings
from gateway.journal.line import content_of
from gateway.journal.opening import ensure_journal
from gateway.journal.scribe import form
from gateway.journal.seal import Sealer, SealKey
from gateway.record import Attempt, Kind, Personal, Record, Usage
from gateway.units import US_PER_S

MODELS: Final = ("gpt-4o", "gpt-4o-mini", "claude-sonnet", "o3", "text-embedding-3-small")
TEAMS: Final = 20
USERS: Final = 500
BODY: Final = b"x" * 1000
NO_DIGEST: Final = "x" * 64
_BEGIN_US: Final = 1_790_000_000 * US_PER_S


class Exchanges:
    """An endless supply of exchanges; each gives the contents of its two lines."""

    def __init__(self, sealer: Sealer, *, digests: bool = True, per_s: int = 1_000) -> None:
        self._sealer = sealer
        self._digests = digests
        self._random = random.Random(7)
        self._per_s = per_s
        self._count = 0
        self._forms: dict[tuple[int, int], bytes] = {}

    def next(self) -> tuple[bytes, bytes]:
        """Decision and outcome of one more exchange, as the worker makes them: sealed once, two digests or none."""
        self._count += 1
        team, model, user = (
            self._random.randrange(TEAMS),
            self._random.randrange(len(MODELS)),
            self._random.randrange(USERS),
        )
        exchange_id = f"req_{self._count:022x}"
        at_us = _BEGIN_US + self._count * US_PER_S // self._per_s
        key = self._sealer.key("acme", f"user-{user}", "")
        sealed = key.seal(Personal(f"user-{user}", "", "192.0.2.7", "OpenAI/Python 3.52.0"), exchange_id)
        decision = self._form(team, model) % (
            exchange_id.encode(), at_us, b"4bf92f3577b34da6a3ce929d0e0e4736", b"00f067aa0ba902b7",
            sealed.encode(), key.id.encode(), len(BODY), self._prompt_digest(key).encode(),
        )  # fmt: skip
        answered = self._answer_digest(key)
        return decision, content_of(self._outcome(team, model, exchange_id, at_us, sealed, key.id, answered))

    def _prompt_digest(self, key: SealKey) -> str:
        return key.digest(BODY) if self._digests else NO_DIGEST

    def _answer_digest(self, key: SealKey) -> str:
        if not self._digests:
            return NO_DIGEST
        hasher = key.hasher()
        hasher.update(BODY)
        return hasher.hexdigest()

    def _form(self, team: int, model: int) -> bytes:
        known = self._forms.get((team, model))
        if known is None:
            constant = self._record(Kind.DECISION, team, model, "", 0)
            known = self._forms[team, model] = form(constant)
        return known

    def _record(self, kind: Kind, team: int, model: int, exchange_id: str, at_us: int, **more: object) -> Record:
        return Record(
            kind, exchange_id, at_us, org="acme", team=f"team-{team}", key_id=f"key-{team}", surface="chat.completions",
            route="default", model=MODELS[model], decision="allow", generation=1, **more,  # type: ignore[arg-type]
        )  # fmt: skip

    def _outcome(
        self, team: int, model: int, exchange_id: str, at_us: int, sealed: str, sealed_by: str, digest: str
    ) -> Record:
        took_ms = self._random.randrange(200, 9_000)
        return self._record(
            Kind.OUTCOME, team, model, exchange_id, at_us + took_ms * 1000,
            trace_id="4bf92f3577b34da6a3ce929d0e0e4736", span_id="00f067aa0ba902b7", sealed=sealed, sealed_by=sealed_by,
            target=f"openai/{MODELS[model]}", status=200, ending="complete",
            attempts=(Attempt(f"openai/{MODELS[model]}", "ok", 200, took_ms, "req_8f2c1d"),),
            usage=Usage(self._random.randrange(50, 8_000), self._random.randrange(10, 900)),
            changed=("model",), duration_us=took_ms * 1000 + 300, overhead_us=300, first_content_us=took_ms * 300,
            request_bytes=1283, answer_bytes=1000, answer_digest=digest,
            cost_microusd=self._random.randrange(10, 9_000),
        )  # fmt: skip


def opened(state_dir: Path) -> tuple[Journal, Sealer]:
    """A worker's chain and keys in an empty state_dir."""
    ensure_journal(state_dir)
    journal = layout.journal_of(state_dir)
    settings = JournalSettings(
        journal=journal, node=layout.node_id(journal), region="", segment_bytes=64 * 1024 * 1024, segment_s=86_400
    )
    chain = layout.worker_chain(0)
    return Journal.open(settings, [chain], _no_repair), Sealer(layout.sealing_of(state_dir), chain)


def _no_repair() -> NoReturn:
    raise RuntimeError("a new chain needs no repair")
