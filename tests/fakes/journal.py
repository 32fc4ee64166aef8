"""A chain and keys that are only remembered: what `scribe.py` writes, and whether it counts as written."""

import asyncio
import hashlib
import json
from typing import Any

from gateway.journal.scribe import Digest, Scribe
from gateway.record import Personal


class FakeLines:
    """The contents in the order they came. `answer` is what `commit` says; None leaves it open, in `waiting`."""

    def __init__(self) -> None:
        self.contents: list[bytes] = []
        self.commits: list[tuple[bytes, bool]] = []
        self.answer: bool | None = True
        self.waiting: list[asyncio.Future[bool]] = []
        self.gone_on = 0

    def append(self, content: bytes) -> None:
        self.contents.append(content)

    def commit(self, content: bytes, *, synced: bool) -> asyncio.Future[bool]:
        future = asyncio.get_running_loop().create_future()
        self.commits.append((content, synced))
        if self.answer is None:
            self.waiting.append(future)
        else:
            future.set_result(self.answer)
        if self.answer is not False:
            self.contents.append(content)
        return future

    def unrecorded(self) -> None:
        self.gone_on += 1

    def told(self) -> list[dict[str, Any]]:
        """The lines, decoded."""
        return [json.loads(content) for content in self.contents]


class FakeKey:
    """Seals in a way a test can read; without an id it says nothing."""

    def __init__(self, key_id: str) -> None:
        self.id = key_id

    def seal(self, personal: Personal, exchange_id: str) -> str:
        return (
            self.id and f"{exchange_id}|{personal.user}|{personal.end_user}|{personal.client_ip}|{personal.user_agent}"
        )

    def digest(self, body: bytes) -> str:
        return self.id and hashlib.sha256(self.id.encode() + body).hexdigest()

    def hasher(self) -> Digest:
        return hashlib.sha256(self.id.encode()) if self.id else NoDigest()


class NoDigest:
    """Of a body, without a key."""

    def update(self, data: bytes) -> None:
        """It is not kept."""

    def hexdigest(self) -> str:
        return ""


class FakeSealer:
    """A key per person; `out` makes it give none."""

    def __init__(self) -> None:
        self.out = False
        self.polls = 0

    def key(self, org: str, user: str, end_user: str) -> FakeKey:
        return FakeKey("" if self.out else f"{org}/{user}/{end_user}")

    def poll(self) -> None:
        self.polls += 1


class FakeDesk:
    """A scribe with everything it writes at hand."""

    def __init__(self, refusals_per_s: int = 10) -> None:
        self.lines = FakeLines()
        self.sealer = FakeSealer()
        self.scribe = Scribe(self.lines, self.sealer, refusals_per_s)
