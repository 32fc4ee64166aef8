"""Behaviours: what can be asked of one answer, and how the asking is spelled.

A behaviour is a flat set of `key=value` settings. The same keys are read from four places, the first that names a
key winning: the `x-sim` header, the model's name after a `+`, the script, the command line. An unknown key or a
value out of shape is an error where it was written: a misspelt fault that silently does nothing would make a test
pass for the wrong reason.

KEYS is the whole vocabulary, in the order docs/sim.md lists it. Nothing here knows a socket or a dialect.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

Point = int | str  # after that many events; or one of POINTS
POINTS = ("before", "headers", "content")
Settings = Mapping[str, object]

MAX_TOKENS = 1_000_000
MAX_BYTES = 1 << 30
MAX_MS = 3_600_000


class BadBehaviour(ValueError):
    """A key nobody knows, or a value that does not fit its key."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How one answer is to be given. Every field at its default means: at once, whole, and well."""

    status: int | None = None
    message: str | None = None
    code: str | None = None
    retry_after: str | None = None
    ttft_ms: float = 0
    token_ms: float = 0
    silence_ms: float = 0
    think_ms: float = 0
    slow_headers_ms: float = 0
    tokens: int | None = None
    big: int | None = None
    reasoning: int = 0
    cached: int = 0
    nousage: bool = False
    reset: Point | None = None
    stall: Point | None = None
    truncate: Point | None = None
    cut: Point | None = None
    error: int | None = None
    garbage: str | None = None
    empty: str | None = None
    ping: int = 0
    cr: bool = False
    split: int | str | None = None
    content_length_lie: int = 0
    chunked: bool = False
    gzip: bool = False
    close: bool = False
    http10: bool = False
    interim: int | None = None

    @property
    def positional(self) -> bool:
        """Whether some fault strikes part of the way through the body."""
        return any(point is not None for point in (self.reset, self.stall, self.truncate, self.cut))


PLAIN = Behaviour()


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        number = int(value)
        if not low <= number <= high:
            raise ValueError(f"must be from {low} to {high}")
        return number

    return parse


def _ms(value: str) -> float:
    number = float(value)
    if not 0 <= number <= MAX_MS:  # also refuses NaN
        raise ValueError(f"must be from 0 to {MAX_MS} milliseconds")
    return number


def _per_second(value: str) -> float:
    rate = float(value)
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError("must be above 0")
    return 1000 / rate


def _point(value: str) -> Point:
    return value if value in POINTS else _whole(0, MAX_TOKENS)(value)


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return value

    return parse


def _flag(value: str) -> bool:
    return _one_of("on", "off")(value) == "on"


def _split(value: str) -> int | str:
    return value if value == "random" else _whole(1, MAX_BYTES)(value)


class Key(NamedTuple):
    """One behaviour: its spelling, the field it sets, how its value is read, what a bare key means."""

    name: str
    field: str
    parse: Callable[[str], object]
    bare: str | None
    meaning: str


_COUNT = _whole(0, MAX_TOKENS)
KEYS: tuple[Key, ...] = (
    Key("status", "status", _whole(300, 599), None, "answer with this status, in the dialect's error shape"),
    Key("message", "message", str, None, "the text of an error"),
    Key("code", "code", str, None, "the code (OpenAI) or type (Anthropic) of an error"),
    Key("retry-after", "retry_after", str, None, "a retry-after header with this value"),
    Key("ttft-ms", "ttft_ms", _ms, None, "wait this long before the first byte, headers included"),
    Key("token-ms", "token_ms", _ms, None, "wait this long between events"),
    Key("tps", "token_ms", _per_second, None, "the same, as events per second"),
    Key("silence", "silence_ms", _ms, None, "headers at once, then nothing for this long, then the body"),
    Key("think", "think_ms", _ms, None, "opening events at once, then nothing for this long, then content"),
    Key("slow-headers", "slow_headers_ms", _ms, None, "the head byte by byte, over this long"),
    Key("tokens", "tokens", _COUNT, None, "an answer of exactly this many tokens"),
    Key("big", "big", _whole(0, MAX_BYTES), None, "an answer text of exactly this many bytes"),
    Key("reasoning", "reasoning", _COUNT, None, "usage claims this many hidden reasoning tokens more"),
    Key("cached", "cached", _COUNT, None, "usage claims this many prompt tokens came from the cache"),
    Key("nousage", "nousage", _flag, "on", "leave usage out"),
    Key("reset", "reset", _point, "content", "RST at this point"),
    Key("stall", "stall", _point, "content", "fall silent for ever at this point"),
    Key("truncate", "truncate", _point, "content", "FIN at this point, in the middle of the framing"),
    Key("cut", "cut", _point, "content", "end the body cleanly at this point, without the last events"),
    Key("error", "error", _COUNT, "0", "event N of a 200 is an error, and the last"),
    Key("garbage", "garbage", _one_of("head", "body", "chunk"), "body", "nonsense in this part"),
    Key("empty", "empty", _one_of("clean", "done"), "clean", "a 200 without content; `done`: only the terminator"),
    Key("ping", "ping", _whole(0, 10_000), "1", "this many comments or ping events before content"),
    Key("cr", "cr", _flag, "on", "CRLF line ends in the event stream"),
    Key("split", "split", _split, "1", "every N bytes (or random pieces) as a TCP send of their own"),
    Key("content-length-lie", "content_length_lie", _COUNT, "10", "claim N bytes more than are sent, then FIN"),
    Key("chunked", "chunked", _flag, "on", "chunked encoding for whole bodies too"),
    Key("gzip", "gzip", _flag, "on", "content-encoding gzip, whatever was accepted"),
    Key("close", "close", _flag, "on", "connection: close, and FIN after the answer"),
    Key("http10", "http10", _flag, "on", "answer as HTTP/1.0: no chunks, FIN ends the body"),
    Key("interim", "interim", _whole(102, 199), "103", "an interim response with this status first"),
)
_BY_NAME = {key.name: key for key in KEYS}


def _setting(name: str, value: str | None) -> tuple[str, object]:
    key = _BY_NAME.get(name)
    if key is None:
        raise BadBehaviour(f"unknown behaviour {name!r}; known: {', '.join(_BY_NAME)}")
    given = key.bare if value is None else value
    if given is None:
        raise BadBehaviour(f"behaviour {name!r} needs a value")
    try:
        return key.field, key.parse(given)
    except ValueError as error:
        raise BadBehaviour(f"behaviour {name}={given}: {error}") from None


@lru_cache(maxsize=4096)
def parse(spec: str, separator: str = ";") -> Settings:
    """Settings by field name from `key=value; key` (or another separator). Raises BadBehaviour."""
    settings: dict[str, object] = {}
    for part in filter(None, (piece.strip() for piece in spec.split(separator))):
        name, equals, value = part.partition("=")
        field, parsed = _setting(name.strip(), value.strip() if equals else None)
        settings[field] = parsed
    return settings


def from_mapping(mapping: Mapping[str, object]) -> Settings:
    """The same from a mapping, as a script writes it: `{status: 503, close: true}`. Raises BadBehaviour."""
    spelled = {True: "on", False: "off"}
    return dict(
        _setting(str(name), spelled[value] if isinstance(value, bool) else None if value is None else str(value))
        for name, value in mapping.items()
    )


def of_model(model: str) -> tuple[str, Settings]:
    """A model's plain name, and the settings written behind it: `sim-echo+status=503+retry-after=2`."""
    name, _, spec = model.partition("+")
    return name, parse(spec, "+") if spec else {}


def behaviour(*layers: Settings) -> Behaviour:
    """One behaviour from layers of settings, the first that names a field winning."""
    merged: dict[str, object] = {}
    for layer in reversed(layers):
        merged.update(layer)
    return Behaviour(**merged) if merged else PLAIN  # type: ignore[arg-type]  # each value was parsed for its field
