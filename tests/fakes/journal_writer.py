"""A journal's writer on a loop and a disk that are turned by hand, and a checker that shares no code with it."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.journal import layout
from gateway.journal.disk import Disk
from gateway.journal.end import Signed
from gateway.journal.journal import Journal, JournalSettings
from gateway.journal.line import content_of
from gateway.record import Kind, Record
from tests.fakes.disk import FaultyDisk
from tests.fakes.handloop import HandLoop

NODE = "0123456789abcdef" * 2


class FakeSigner:
    """Signs in a way a test can check."""

    key_id = "k1"

    def sign(self, data: bytes) -> bytes:
        return b"signed:" + hashlib.sha256(data).digest()


def content(text: str, kind: Kind = Kind.OUTCOME, detail: str = "") -> bytes:
    return content_of(Record(kind, text, 1, detail=detail))


def settings(journal: Path, **changes: Any) -> JournalSettings:
    journal.mkdir(exist_ok=True)
    given = JournalSettings(journal=journal, node=NODE, region="eu", segment_bytes=1 << 20, segment_s=1000.0)
    return dataclasses.replace(given, **changes)


def nothing_signed(_: str) -> Signed | None:
    return None


class Writer:
    """One opening of chain w0. `sync`: a round, the one that goes on or another, and what it left to do."""

    def __init__(
        self,
        given: JournalSettings,
        disk: Disk | None = None,
        signed: Callable[[str], Signed | None] = nothing_signed,
    ) -> None:
        self.loop = HandLoop()
        self.journal = Journal.open(given, ["w0"], FakeSigner, signed, disk or FaultyDisk())
        self.journal.start(self.loop.real())
        self.loop.turn()

    def sync(self) -> None:
        self.round()
        self._finish()
        if self.journal._syncer._dirty and not self.journal._syncer.failed:
            self.round()
            self._finish()

    def round(self) -> None:
        """A round, the one that goes on or else another, to its end, of which the loop has not heard yet."""
        if self.journal._syncer._round is None:
            self.journal._syncer._begin()
        self.loop.elsewhere()

    def _finish(self) -> None:
        self.loop.settle()
        while self.loop.elsewhere():
            self.loop.settle()

    def close(self) -> None:
        self.loop.run(self.journal.close())


def checked(journal: Path, chain: str = "w0") -> list[dict[str, Any]]:
    """The records of a chain, after checking every line of it with nothing but hashlib and json."""
    head = hashlib.sha256(f"gateway journal 1\n{NODE}\n{chain}\n".encode()).hexdigest()
    records: list[dict[str, Any]] = []
    for path in sorted((journal / chain).glob("*.jsonl")):
        data = path.read_bytes()
        assert data == b"" or data.endswith(b"\n"), f"{path.name} ends within a line"
        for number, line in enumerate(data.splitlines()):
            record = json.loads(line)
            before, head = head, _after(head, line)
            assert record["hash"] == head, f"{path.name} line {number} does not chain"
            assert record["seq"] == len(records)
            if number == 0:
                assert (record["action"], record["prev"]) == ("segment", before)
                assert (record["segment"], record["node"]) == (int(path.stem), NODE)
            records.append(record)
    return records


def _after(head: str, line: bytes) -> str:
    body = line[: line.rindex(b',"hash":"')]
    return hashlib.sha256(bytes.fromhex(head) + hashlib.sha256(body).digest()).hexdigest()


def ids(journal: Path, chain: str = "w0") -> list[str]:
    """The exchange ids in a checked chain, in order."""
    return [record["exchange_id"] for record in checked(journal, chain) if record["exchange_id"]]


def segment(journal: Path, number: int) -> Path:
    return layout.segment_path(journal, "w0", number)
