"""Whatever order providers, the caller and time act in, a transfer keeps its promises.

A run is a list of moves, played on real connections over transports without sockets. After each move and at the end:
phases move along the table only (a step that is not in it raises, and nothing may), there is one ending and one
answer, what the caller got is what its provider sent (comments of ours apart), and nothing is left open.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UpstreamConnectError
from gateway.record import Ending, Outcome
from gateway.relay import stream as stream_module
from gateway.relay.phases import TERMINAL, TRANSITIONS, Happening, Phase, step
from tests.fakes.provider import DONE, END, ROLE, STOP, STREAMED, TEXT, USAGE, WHOLE, Line, answer, chunk, stream, turns
from tests.fakes.transfer import Stage, run, scene

PLAIN = b'{"model":"gpt","messages":[]}'
COMMENT = b": keep-alive\n\n"
ERROR = b'data: {"error":{"message":"overloaded"}}\n\n'
PROVIDERS = 3
EVENTS: Final = {
    "role": ROLE,
    "text": TEXT,
    "stop": STOP,
    "usage": USAGE,
    "done": DONE,
    "error": ERROR,
    "ping": b": p\n\n",
}
WHOLES: Final = {
    "ok": answer(200, WHOLE),
    "caller": answer(400, b'{"error":{"message":"no"}}'),
    "ours": answer(401, b"{}"),
    "busy": answer(503, b'{"error":{"message":"busy"}}'),
    "audio": answer(200, b"\x00\x01", b"audio/mpeg"),
    "inside": answer(200, b'{"error":{"message":"no"}}'),
    "empty": answer(200, b""),
}

Move = Callable[["Play"], None]


class Play:
    """A stage, and what each of its lines has said so far."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.headed: set[Line] = set()
        self.events: dict[Line, bytes] = {}
        self.paused = False

    @property
    def line(self) -> Line | None:
        """The connection that is being asked now."""
        lines = [line for p in self.stage.providers for line in p.lines if line.is_open() and line.request]
        return lines[-1] if lines else None

    def says(self, data: bytes, cut: int) -> None:
        """Bytes of the answer, in two reads."""
        if self.line is not None:
            self.line.says(*[part for part in (data[:cut], data[cut:]) if part])

    def head(self) -> bool:
        """Begin an event stream where none has begun; True when one is under way."""
        line = self.line
        if line is None or (line in self.headed and line not in self.events):
            return False
        if line not in self.headed:
            self.headed.add(line)
            self.events[line] = b""
            line.connection.data_received(stream())
        return line.is_open()


def event(name: str, cut: int) -> Move:
    def move(play: Play) -> None:
        if play.head() and play.line is not None:
            line, data = play.line, EVENTS[name]
            play.events[line] += data
            framed = chunk(data)
            for part in (framed[:cut], framed[cut:]):
                if part and line.is_open():
                    line.connection.data_received(part)

    return move


def whole(name: str, cut: int) -> Move:
    def move(play: Play) -> None:
        line = play.line
        if line is not None and line not in play.headed:
            play.headed.add(line)
            play.says(WHOLES[name], cut)

    return move


def end(play: Play) -> None:
    if play.line in play.events and play.line is not None:
        play.line.says(END)


def reset(play: Play) -> None:
    if play.line is not None:
        play.line.resets()


def fin(play: Play) -> None:
    if play.line is not None:
        play.line.ends()


def garbage(play: Play) -> None:
    play.says(b"\x00\r\n\r\n", 1)


def pause(play: Play) -> None:
    play.stage.reply.paused = True
    play.stage.transfer.pause()


def resume(play: Play) -> None:
    play.stage.reply.paused = False
    play.stage.transfer.resume()


def leave(play: Play) -> None:
    assert play.stage.task is not None
    play.stage.task.cancel()


def passes(seconds: int) -> Move:
    return lambda play: play.stage.clock.advance(seconds, play.stage.wheel)


def nothing(_: Play) -> None:
    """A turn of the loop."""


CUTS = st.integers(0, 60)
MOVES = st.one_of(
    st.builds(event, st.sampled_from(sorted(EVENTS)), CUTS),
    st.builds(event, st.sampled_from(["text", "role"]), CUTS),
    st.builds(whole, st.sampled_from(sorted(WHOLES)), CUTS),
    st.builds(passes, st.sampled_from([1, 5, 11, 61, 301])),
    st.sampled_from([end, reset, fin, garbage, pause, resume, leave, nothing]),
)
RUNS = st.lists(st.tuples(MOVES, st.booleans()), max_size=25)  # a move, and whether the loop turns behind it
DIALS = st.lists(st.booleans(), min_size=PROVIDERS, max_size=PROVIDERS)  # which providers cannot be reached


async def played(body: bytes, moves: Sequence[tuple[Move, bool]], dials: Sequence[bool], warm: int) -> None:
    limits = {"first_byte_ns": 60, "first_content_ns": 120, "idle_ns": 30, "total_ns": 600}
    async with scene(body, providers=PROVIDERS, **limits) as stage:
        for provider, refused in zip(stage.providers, dials, strict=True):
            if refused:
                provider.refusals = [UpstreamConnectError("no")] * 4
        for provider in stage.providers[:warm]:
            if not provider.refusals:
                await provider.warm()
        play = Play(stage)
        await stage.asked()
        for move, turn in moves:
            move(play)
            check_under_way(stage)
            if turn:
                await turns(4)
                check_under_way(stage)
        assert stage.task is not None
        for _ in range(100):
            if stage.task.done():
                break
            await stage.passes(31)
        assert stage.task.done(), "no limit ends it"
        check_over(play, await stage.outcome())


def check_under_way(stage: Stage) -> None:
    reply = stage.reply
    assert reply.faults == []
    assert reply.calls.count("start") + reply.calls.count("whole") <= 1
    assert len([word for word in reply.calls if word in ("end", "cut", "whole", "fail")]) <= 1


def check_over(play: Play, outcome: Outcome) -> None:
    stage, reply = play.stage, play.stage.reply
    assert stage.transfer.phase in TERMINAL
    assert len(outcome.attempts) <= PROVIDERS
    body = reply.body.replace(COMMENT, b"")
    if stage.transfer.streaming:
        winner = outcome.attempts[-1].target.partition("/")[0]
        sent = [
            data
            for p in stage.providers
            for line, data in play.events.items()
            if line in p.lines and p.account.name == winner
        ]
        if reply.head.sse and sent:
            assert any(data.startswith(body) for data in sent), (body, sent)
            assert (outcome.ending is Ending.COMPLETE) <= any(data == body for data in sent)
    elif reply.ending == "whole":
        assert body in {data.partition(b"\r\n\r\n")[2] for data in WHOLES.values()}
    else:
        assert body == b"", "nothing goes out before content"
    if outcome.ending is Ending.TRUNCATED:
        assert stage.transfer.streaming
    if outcome.ending is Ending.ABANDONED:
        assert reply.ending in ("", "cut")
    else:
        assert reply.ending


@contextmanager
def no_illegal_step() -> Iterator[None]:
    """A step that is not in the table raises, but inside a callback that would only be logged: so it is noted."""
    illegal: list[tuple[Phase, Happening]] = []

    def noted(phase: Phase, happening: Happening) -> Phase:
        if (phase, happening) not in TRANSITIONS:
            illegal.append((phase, happening))
        return step(phase, happening)

    with mock.patch.object(stream_module, "step", noted):
        yield
    assert illegal == []


@given(moves=RUNS, dials=DIALS, warm=st.integers(0, PROVIDERS))
def test_a_stream_keeps_its_promises(moves: list[tuple[Move, bool]], dials: list[bool], warm: int) -> None:
    with no_illegal_step():
        run(played(STREAMED, moves, dials, warm))


@given(moves=RUNS, dials=DIALS, warm=st.integers(0, PROVIDERS))
def test_a_whole_answer_keeps_its_promises(moves: list[tuple[Move, bool]], dials: list[bool], warm: int) -> None:
    with no_illegal_step():
        run(played(PLAIN, moves, dials, warm))
