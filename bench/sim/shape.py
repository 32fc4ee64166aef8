"""Faults that live inside a body: a stream of events in, a stream of events out; no socket, no clock.

Order matters and is fixed: emptiness, then pings, then the error, then the clean cut, then line ends, then garbage,
then compression, each seeing what the one before made of the stream. Faults of *when* and of the connection itself
(pacing, stalls, resets) are in `play`.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from bench.sim.wire import Event, Kind, Reply

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.sim.faults import Behaviour, Point

WHOLE_PIECES = 8
GARBAGE = b"\x00\xff\xfe{]]not what you hoped for\x1b[31m\n\n"
GZIP_WBITS = 31  # zlib's way of asking for a gzip header and trailer


def events_of(reply: Reply, behaviour: Behaviour) -> Iterator[Event]:
    """The reply's body as events, shaped by every fault that is a matter of content."""
    events = _pieces(reply.body, behaviour) if isinstance(reply.body, bytes) else reply.body
    if behaviour.empty:
        events = (event for event in events if behaviour.empty == "done" and event.kind is Kind.DONE)
    if behaviour.ping and reply.sse:
        events = _pinged(events, reply, behaviour.ping)
    if behaviour.error is not None and reply.error_event:
        events = _failing(events, behaviour.error, reply.error_event)
    if behaviour.cut is not None:
        events = _cut(events, behaviour.cut)
    if behaviour.cr and reply.sse and not reply.exact:
        events = (Event(kind, data.replace(b"\n", b"\r\n")) for kind, data in events)
    if behaviour.garbage == "body":
        events = iter([Event(Kind.CONTENT, GARBAGE)])
    return _gzipped(events) if behaviour.gzip else events


def reached(point: Point | None, sent: int, content_sent: int) -> bool:
    """Whether a body that has sent so many events, so many of them content, stands at that point."""
    if point is None or point == "before":
        return False
    if point == "headers":
        return True
    return content_sent > 0 if point == "content" else sent >= int(point)


def _pieces(body: bytes, behaviour: Behaviour) -> Iterator[Event]:
    """A whole body is one event, or eight when a fault has to strike between two."""
    step = max(1, -(-len(body) // WHOLE_PIECES)) if behaviour.positional else max(1, len(body))
    return (Event(Kind.CONTENT, body[at : at + step]) for at in range(0, len(body), step))


def _pinged(events: Iterator[Event], reply: Reply, pings: int) -> Iterator[Event]:
    for number, event in enumerate(events):
        if number == reply.ping_at:
            yield from (Event(Kind.OPENING, reply.ping) for _ in range(pings))
        yield event


def _failing(events: Iterator[Event], at: int, error: bytes) -> Iterator[Event]:
    for number, event in enumerate(events):
        if number == at:
            break
        yield event
    yield Event(Kind.CLOSING, error)


def _cut(events: Iterator[Event], at: Point) -> Iterator[Event]:
    content_sent = 0
    for sent, event in enumerate(events):
        if at == "before" or reached(at, sent, content_sent):
            return
        yield event
        content_sent += event.kind is Kind.CONTENT


def _gzipped(events: Iterator[Event]) -> Iterator[Event]:
    """Flushed at each event, so that pacing survives compression."""
    packer = zlib.compressobj(wbits=GZIP_WBITS)
    for kind, data in events:
        yield Event(kind, packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))
    yield Event(Kind.DONE, packer.flush())
