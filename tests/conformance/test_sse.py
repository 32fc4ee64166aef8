"""Every stream of corpus/sse, fed whole, byte by byte and randomly split: same facts, same bytes."""

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from gateway.dialects.registry import find
from gateway.dialects.surfaces import SURFACES
from gateway.relay.meter import Tap

CORPUS = Path(__file__).parents[1] / "corpus" / "sse"
SURFACE = {surface.name: surface for surface in SURFACES}
LINE_ENDS = {"lf": b"\n", "crlf": b"\r\n", "cr": b"\r"}
RANDOM_SPLITS = 12
BYTEWISE_MAX = 20_000  # a huge event is fed byte by byte once in tests/unit/relay/test_sse.py


def cases() -> Iterator[Any]:
    for path in sorted(CORPUS.glob("*.yaml")):
        for case in yaml.safe_load(path.read_text()):
            yield pytest.param(case, id=f"{path.stem}: {case['name']}")


CASES = list(cases())


def stream_of(case: dict[str, Any]) -> bytes:
    stream: bytes = case["stream"].encode().replace(b"@PAD@", b"x" * case.get("pad", 0))
    bom = b"\xef\xbb\xbf" if case.get("bom") else b""
    return bom + stream.replace(b"\n", LINE_ENDS[case.get("line_end", "lf")])


def splits(stream: bytes) -> Iterator[list[bytes]]:
    yield [stream] if stream else []
    if len(stream) <= BYTEWISE_MAX:
        yield [stream[i : i + 1] for i in range(len(stream))]
    chance = random.Random(len(stream))
    for _ in range(RANDOM_SPLITS):
        longest = chance.choice((2, 5, 40, 400, 4000)) if len(stream) <= BYTEWISE_MAX else 4000
        chunks, at = [], 0
        while at < len(stream):
            size = chance.randint(1, longest)
            chunks.append(stream[at : at + size])
            at += size
        yield chunks


def tap_of(case: dict[str, Any], *, withhold: bool) -> Tap:
    surface = SURFACE[case["surface"]]
    return Tap(find(surface.dialect).stream_reader(surface), withhold_usage=withhold)


def pieces(stream: bytes) -> list[bytes]:
    """The stream cut behind its blank lines, by another way than the splitter's."""
    end = rb"(?:\r\n|\n|\r(?!\n))"
    found: list[bytes] = re.findall(rb"(?s).*?%b%b|.+?\Z" % (end, end), stream)
    assert b"".join(found) == stream
    return found


def without_event(stream: bytes, mark: bytes) -> bytes:
    """The stream less the one event that holds the mark."""
    kept = [piece for piece in pieces(stream) if mark not in piece]
    assert len(kept) == len(pieces(stream)) - 1
    return b"".join(kept)


def check_facts(case: dict[str, Any], tap: Tap) -> None:
    usage = msgspec.to_builtins(tap.usage) if tap.usage is not None else None
    assert usage == case.get("usage")
    assert tap.content == ("content" in case)
    assert tap.done == case["done"]
    assert tap.complete(clean_eof=True) == case["complete"]
    assert tap.complete(clean_eof=False) == case["done"]
    assert case.get("error", "").encode() in tap.error
    assert bool(tap.error) == ("error" in case)


@pytest.mark.parametrize("case", CASES)
def test_facts_and_bytes_are_the_same_at_any_split(case: dict[str, Any]) -> None:
    stream = stream_of(case)
    for chunks in splits(stream):
        tap = tap_of(case, withhold=False)
        for chunk in chunks:
            assert tap.feed(chunk) is chunk
        assert tap.flush() == b""
        check_facts(case, tap)


@pytest.mark.parametrize("case", CASES)
def test_withholding_takes_that_one_event_and_no_other_byte(case: dict[str, Any]) -> None:
    stream = stream_of(case)
    wanted = without_event(stream, case["withheld"].encode()) if "withheld" in case else stream
    for chunks in splits(stream):
        tap = tap_of(case, withhold=True)
        out = b"".join(tap.feed(chunk) for chunk in chunks) + tap.flush()
        assert out == wanted
        check_facts(case, tap)


@pytest.mark.parametrize("case", [case for case in CASES if "content" in case.values[0]])
def test_content_begins_with_the_event_that_carries_it(case: dict[str, Any]) -> None:
    stream = stream_of(case)
    end = 0
    for piece in pieces(stream):
        end += len(piece)
        if case["content"].encode() in piece:
            break
    tap = tap_of(case, withhold=False)
    fed = 0
    while not tap.content and fed < len(stream):
        tap.feed(stream[fed : fed + 1])
        fed += 1
    assert fed in ((end - 1, end) if case.get("line_end") else (end,))  # CR already ends a line, whatever follows
