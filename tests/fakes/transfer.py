"""One transfer on a stage: providers that are played, a caller that writes down, and a clock that stands still.

    async with scene(STREAMED, providers=2) as stage:
        stage.begin()
        await turns()
        stage.provider.line.says(stream(ROLE, TEXT))
        outcome = await stage.outcome()

Leaving the block checks what holds for every transfer: told once how it ended, in order, and no connection kept.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
import uvloop

from gateway.record import Ending, Outcome
from gateway.relay.outgoing import Outgoing, Target
from gateway.relay.stream import Admit, Transfer
from gateway.units import NS_PER_S
from gateway.wheel import Wheel
from tests.fakes.clock import Clock, stopped_clock
from tests.fakes.patience import PATIENCE_S
from tests.fakes.provider import TERMS, FakeProvider, ask, turns
from tests.fakes.reply import FakeReply

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run on the production loop, and never for long."""
    return uvloop.run(asyncio.wait_for(work, PATIENCE_S))


class Stage:
    """A transfer and everyone it deals with."""

    def __init__(self, out: Outgoing, providers: Sequence[FakeProvider], clock: Clock, **terms_s: float) -> None:
        self.clock = clock
        self.wheel = Wheel()
        self.wheel.start()
        self.providers = providers
        self.reply = FakeReply()
        counts = {name: value if name == "max_attempts" else int(value * NS_PER_S) for name, value in terms_s.items()}
        terms = msgspec.structs.replace(TERMS, **counts)
        self.out = out
        self.transfer = Transfer(out, self.reply, terms, self.wheel)
        self.task: asyncio.Task[Outcome] | None = None

    @property
    def provider(self) -> FakeProvider:
        """The first one."""
        return self.providers[0]

    def begin(self, targets: Sequence[Target] | None = None, admit: Admit | None = None) -> None:
        """Start the transfer."""
        given = [provider.target() for provider in self.providers] if targets is None else targets
        self.task = asyncio.get_running_loop().create_task(self.transfer.run(given, admit))

    async def asked(self) -> None:
        """Start, and let the first provider be asked."""
        self.begin()
        await turns()

    async def outcome(self) -> Outcome:
        """Wait for the end."""
        assert self.task is not None
        return await self.task

    async def leave(self) -> Outcome:
        """The caller goes."""
        assert self.task is not None
        self.task.cancel()
        return await self.task

    async def passes(self, seconds: float) -> None:
        """Let time pass, and what follows from it happen."""
        self.clock.advance(seconds, self.wheel)
        await turns()

    async def check(self) -> None:
        """What holds once a transfer is over."""
        self.wheel.stop()
        if self.task is None:
            return
        outcome = await asyncio.wait_for(self.task, PATIENCE_S)
        await turns()
        assert self.reply.faults == []
        expected = {
            Ending.COMPLETE: {"end", "whole", "fail"},
            Ending.FAILED: {"fail", "whole"},
            Ending.TRUNCATED: {"fail", "cut"},
            Ending.ABANDONED: {"", "cut"},
        }
        assert self.reply.ending in expected[outcome.ending], (outcome, self.reply.calls)
        assert [provider.busy for provider in self.providers] == [0] * len(self.providers)
        assert all(line.transport.gone == line.transport.closed for p in self.providers for line in p.lines)
        assert not self.transfer.wheel_tick, "a deadline is left"


@asynccontextmanager
async def scene(body: bytes | Outgoing, *, providers: int = 1, **terms_s: float) -> AsyncIterator[Stage]:
    """A transfer of this request (a chat completion, when it is given as bytes) that has not begun."""
    out = ask(body) if isinstance(body, bytes) else body
    with stopped_clock() as clock:
        stage = Stage(out, [FakeProvider(name=f"p{index}") for index in range(providers)], clock, **terms_s)
        yield stage
        await stage.check()
        for provider in stage.providers:
            provider.pool.close()
