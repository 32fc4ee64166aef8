"""What happens to one chain over many openings, and what must hold whatever happens.

Exchange ids are numbers in the order in which the records were handed over. `check` opens the chain on a disk that is
well and reads it from its first line with nothing but hashlib and json: it verifies, ids rise, and nothing is missing
that was answered for: by the process as written, when it was killed; by the disk as synced or by control as signed,
when power was lost.
"""

import hashlib
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.journal.end import Signed
from gateway.journal.read import Place
from gateway.record import Kind
from tests.fakes.disk import Fault, PowerDisk
from tests.fakes.journal_writer import Writer, checked, content, settings

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Callable

FILLS = ("x" * 200, "y", "z" * 900)


class Killed(BaseException):
    """The process ended before a call of the disk."""


class Story:
    """One chain in `journal`. `fault`: what the disk does to its next calls; `kernel`: it syncs beside the loop."""

    def __init__(self, journal: Path, *, kernel: bool = True, **changes: Any) -> None:
        self.given = settings(journal, **{"segment_bytes": 1_500, "backlog_bytes": 1_500} | changes)
        self.journal = journal
        self.fault: Callable[[str, int], Fault | None] | None = None
        self.disk = PowerDisk(journal, lambda name, number: self.fault and self.fault(name, number), kernel=kernel)
        self.writer: Writer | None = None
        self.signed: Signed | None = None
        self.count = 0
        self.waiting: list[tuple[int, bool, Future[bool]]] = []
        self.appended: set[int] = set()  # by the process that runs now
        self.kept: set[int] = set()  # must be there after a kill
        self.safe: set[int] = set()  # must be there after a power cut
        self.torn: set[bytes] = set()  # ends of lines that kills cut short

    # --- what a process does ----------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the chain; on a bad disk that may fail, and leaves nothing open."""
        if self.writer is not None:
            return
        try:
            self.writer = Writer(self.given, self.disk, lambda _: self.signed)
        except OSError:
            assert self.disk.fds == {}
        else:
            self.kept |= (there := self.present())
            self.safe |= there

    def append(self) -> None:
        if self.writer is not None:
            self.count += 1
            self.appended.add(self.count)
            self.writer.journal.append(content(f"{self.count}", detail=FILLS[self.count % 3]))

    def commit(self, *, synced: bool) -> None:
        if self.writer is not None:
            self.count += 1
            record = content(f"{self.count}", Kind.DECISION, FILLS[self.count % 3])
            future = self.writer.journal.commit(record, synced=synced)
            self.waiting.append((self.count, synced, future))
            self._hear()

    def leave(self) -> None:
        """The caller who has waited longest goes away."""
        if self.waiting:
            self.waiting.pop(0)[2].cancel()

    def unrecorded(self) -> None:
        if self.writer is not None:
            self.writer.journal.unrecorded()

    def turn(self) -> None:
        if self.writer is not None:
            self.writer.loop.turn()
            self._hear()

    def sync(self) -> None:
        if self.writer is not None:
            self.writer.sync()
            self._hear()

    def round(self) -> None:
        """A round to its end, of which the loop has not heard yet."""
        if self.writer is not None:
            self.writer.round()

    def elsewhere(self) -> None:
        """What goes on elsewhere ends, and the loop has not heard of it yet."""
        if self.writer is not None:
            self.writer.loop.elsewhere()

    def pass_time(self, seconds: float = 1.5) -> None:
        if self.writer is not None:
            self.writer.loop.advance(seconds)
            self._hear()

    def age(self) -> None:
        """The current segment becomes old enough to be followed by another."""
        if self.writer is not None:
            self.writer.journal._chain.file.opened_ns -= 10**18

    def sign(self) -> None:
        """Control brings what is there to the disk, and signs it; not while syncs fail, for it would see that too."""
        if self.writer is None or self.writer.journal._sync_failing:
            return
        chain = self.writer.journal._chain
        if chain.file.size:
            for path in (self.journal / "w0").glob("*.jsonl"):
                self.disk.keep(path)
            self.signed = Signed(Place(chain.file.number, chain.file.size), chain.seq - 1, chain.head)
            self.safe |= self.present()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self._hear()
            self.writer = None
            self.appended.clear()
            assert self.disk.fds == {}
            assert self.waiting == [], "everybody has an answer"

    def _hear(self) -> None:
        for waiter in [waiter for waiter in self.waiting if waiter[2].done()]:
            self.waiting.remove(waiter)
            number, synced, future = waiter
            if future.result():
                self.kept.add(number)
                self.safe |= {number} if synced else set()

    # --- how it ends ------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        self.disk.kill()
        self.torn |= {path.read_bytes().rpartition(b"\n")[2] for path in (self.journal / "w0").glob("*.jsonl")} - {b""}
        self._gone()

    def lose_power(self, dice: random.Random) -> None:
        self.disk.lose_power(dice)
        self.kept = set(self.safe)
        self.torn.clear()
        self._gone()

    def _gone(self) -> None:
        self.writer = None
        self.waiting.clear()
        self.appended.clear()

    # --- what must hold ---------------------------------------------------------------------------------------------

    def present(self) -> set[int]:
        """The ids of complete lines that are there."""
        lines = [line for path in (self.journal / "w0").glob("*.jsonl") for line in path.read_bytes().split(b"\n")[:-1]]
        return {int(record["exchange_id"]) for record in map(json.loads, lines) if record["exchange_id"]}

    def check(self) -> None:
        """Let the disk be well, write one thing more, close, and check all there is."""
        self.fault = None
        self.open()
        assert self.writer is not None
        for _ in range(2):
            self.sync()
            self.pass_time(3.0)
        assert not self.writer.journal.failing
        self.append()
        journal, appended, last = self.writer.journal, set(self.appended), self.count
        self.close()
        records = checked(self.journal)
        found = [int(record["exchange_id"]) for record in records if record["exchange_id"]]
        assert found == sorted(set(found)), "they rise"
        assert found[-1] == last
        assert self.kept <= set(found), "what was answered for is there"
        assert len(appended - set(found)) <= journal.lost, "what is missing is counted"
        left = [record for record in records[journal._first_seq :] if record.get("action") == "left"]
        assert sum(json.loads(record["detail"])["lost"] for record in left) == journal.lost, "and told"
        self._check_repairs([record for record in records if record.get("action") == "repaired"])
        self.kept, self.safe = set(found), set(found)

    def _check_repairs(self, records: list[dict[str, Any]]) -> None:
        told = [json.loads(record["detail"]) for record in records]
        assert not any("signed_lost" in each for each in told), "what is signed is never lost"
        kept = {path: path.read_bytes() for path in (self.journal / "w0").glob("torn-*")}
        assert not any(path.suffix == ".new" for path in kept), "every cut is told"
        digests = {each["cut_sha256"] for each in told}
        assert {hashlib.sha256(data).hexdigest() for data in kept.values()} <= digests, "as it is"
        assert all(any(data.endswith(end) for data in kept.values()) for end in self.torn), "what a kill left is kept"
        self.torn.clear()
