"""`python -m bench.journal`: what a journal costs on this machine, as a table.

- append: CPU of the worker's thread for one exchange (decision and outcome, sealed, chained, written), apart from the
  event loop's own turns; at 1, 8 and 64 exchanges a turn.
- digests: what the keyed digests of a prompt and an answer of 1,000 bytes each come to on top of that.
- bytes: what an exchange takes up, on the disk.
- verify: how fast `gateway audit verify` reads, signed, in one process.
- usage: how many records a second the usage reader takes into SQLite, unsealing included.
"""

import argparse
import asyncio
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import uvloop

from bench import program
from bench.journal.corpus import Exchanges, opened
from gateway.config.schema import Config
from gateway.control.database.handle import Database
from gateway.control.notary import Notary
from gateway.control.readers.runner import Runner, Source
from gateway.control.readers.usage import UsageReader
from gateway.journal import layout
from gateway.journal.journal import Journal
from gateway.journal.read import Place
from gateway.journal.seal import Opener, Sealer
from gateway.journal.signing import public_keys
from gateway.journal.verify import verify

TURNS: Final = (1, 8, 64)


async def _write(journal: Journal, sealer: Sealer, count: int, per_turn: int, *, digests: bool) -> float:
    """CPU seconds of this thread for `count` exchanges, `per_turn` at once."""
    exchanges = Exchanges(sealer, digests=digests)
    for _ in range(1000):
        exchanges.next()  # keys and forms that a worker has long had
    before = time.thread_time()
    for _ in range(count // per_turn):
        waited = []
        for _ in range(per_turn):
            decision, outcome = exchanges.next()
            waited.append(journal.commit(decision, synced=False))
            journal.append(outcome)
        for future in waited:
            await future
    return time.thread_time() - before


async def _turns(count: int, per_turn: int) -> float:
    """The same turns of the loop, with nothing to write: what has to be taken off."""
    loop = asyncio.get_running_loop()
    before = time.thread_time()
    for _ in range(count // per_turn):
        waited = [loop.create_future() for _ in range(per_turn)]
        loop.call_soon(_answer, waited)
        for future in waited:
            await future
    return time.thread_time() - before


def _answer(futures: "list[asyncio.Future[bool]]") -> None:
    for future in futures:
        future.set_result(True)


def _made(count: int, sealer: Sealer) -> float:
    """CPU seconds to invent and encode the same exchanges without sealing them: what the worker does anyway."""
    exchanges = Exchanges(_Unsealed(sealer), digests=False)  # type: ignore[arg-type]
    before = time.thread_time()
    for _ in range(count):
        exchanges.next()
    return time.thread_time() - before


class _Unsealed:
    """Keys that do nothing, to take off what the invention of exchanges costs."""

    def __init__(self, sealer: Sealer) -> None:
        self.id = sealer.key("acme", "nobody", "").id

    def key(self, *_: str) -> "_Unsealed":
        return self

    def seal(self, *_: object) -> str:
        return "x" * 188


async def _append(state_dir: Path, count: int) -> dict[str, Any]:
    journal, sealer = opened(state_dir)
    journal.start(asyncio.get_running_loop())
    appended, digested = {}, {}
    for per_turn in TURNS:
        plain_s = min([await _write(journal, sealer, count, per_turn, digests=False) for _ in range(3)])
        full_s = min([await _write(journal, sealer, count, per_turn, digests=True) for _ in range(3)])
        off_s = min([await _turns(count, per_turn) for _ in range(3)]) + min(_made(count, sealer) for _ in range(3))
        appended[per_turn] = round((plain_s - off_s) / count * 1e6, 2)
        digested[per_turn] = round((full_s - plain_s) / count * 1e6, 2)
    lines, size = journal.lines, journal.written_bytes
    await journal.close()
    return {
        "append_us_per_exchange": appended,
        "digests_us_per_exchange": digested,
        "bytes_per_exchange": round(2 * size / lines),
    }


def _signed(state_dir: Path) -> tuple[dict[str, Place], dict[str, int]]:
    notary = Notary(layout.journal_of(state_dir), layout.signing_of(state_dir))
    notary.turn()
    while notary.behind:
        notary.turn()
    signed, heads = dict(notary.signed), dict(notary.head_seq)
    notary.close()
    return signed, heads


def _verify(state_dir: Path) -> dict[str, Any]:
    journal = layout.journal_of(state_dir)
    before, cpu = time.perf_counter(), time.process_time()
    report = verify(journal, public_keys(layout.signing_of(state_dir)))
    took_s, cpu_s = time.perf_counter() - before, time.process_time() - cpu
    if not report.ok:
        raise SystemExit(f"the journal does not verify: {report.findings[0]}")
    return {
        "verify_mb_per_s": round(report.size_bytes / took_s / 1e6),
        "verify_mb_per_cpu_s": round(report.size_bytes / cpu_s / 1e6),
    }


def _usage(state_dir: Path, signed: dict[str, Place], heads: dict[str, int]) -> dict[str, Any]:
    journal = layout.journal_of(state_dir)
    database = Database.of(Config(state_dir=str(state_dir)))
    reader = UsageReader(database, layout.node_id(journal), Opener(layout.sealing_of(state_dir)).open)
    runner = Runner(reader, Source(journal, layout.node_id(journal), lambda: signed, lambda: heads), state_dir)
    before, cpu = time.perf_counter(), time.process_time()
    while runner.records == 0 or runner.lag_records:
        runner.step()
    took_s, cpu_s = time.perf_counter() - before, time.process_time() - cpu
    database.close()
    return {
        "usage_records_per_s": round(runner.records / took_s),
        "usage_records_per_cpu_s": round(runner.records / cpu_s),
    }


def measure(count: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """All of it, in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-journal-") as name:
        state_dir = Path(name)
        tell(f"append: {len(TURNS)} x 6 x {count:,} exchanges")
        found = uvloop.run(_append(state_dir, count))
        tell("sign")
        signed, heads = _signed(state_dir)
        tell("verify")
        found |= _verify(state_dir)
        tell("usage reader")
        return found | _usage(state_dir, signed, heads)


_NAMES: Final = {
    "append_us_per_exchange": "append: µs of CPU an exchange",
    "digests_us_per_exchange": "digests: µs of CPU an exchange more",
    "bytes_per_exchange": "on the disk: bytes an exchange",
    "verify_mb_per_s": "verify: MB/s",
    "verify_mb_per_cpu_s": "verify: MB a second of CPU",
    "usage_records_per_s": "usage reader: records/s",
    "usage_records_per_cpu_s": "usage reader: records a second of CPU",
    "python": "Python",
}


def markdown(found: Mapping[str, Any]) -> str:
    """As a table."""
    rows = []
    for name, value in found.items():
        by_turn = value.items() if isinstance(value, dict) else [("", value)]
        rows += [(f"{_NAMES[name]}{f', {turn} a turn' if turn else ''}", figure) for turn, figure in by_turn]
    return "\n".join(["| what | figure |", "|---|---|", *(f"| {what} | {figure} |" for what, figure in rows)])


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser("python -m bench.journal", description="What keeping a journal costs.")
    parser.add_argument(
        "--count", type=program.count(max(TURNS)), default=20_000, help="exchanges in each of eighteen rounds (20,000)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args(arguments)
    return program.ended("bench.journal", lambda: carry_out(options))


def carry_out(options: argparse.Namespace) -> int:
    """Measure and print."""
    found = measure(options.count, lambda what: print(f"… {what}", file=sys.stderr))
    found["python"] = platform.python_version()
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print(markdown(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
