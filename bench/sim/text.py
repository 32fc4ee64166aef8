"""What the answers say, how they fall into tokens, and what a prompt is taken to cost.

A token here is up to seven visible characters with the white space before them: no model's vocabulary, but
deterministic, quick, and close enough that prices and limits look right. `pieces` partitions a text exactly
(joined, it is the text again) and is prefix-stable: the first N pieces of a text are all the pieces of their join.
Prompts, which may be megabytes, are only measured: four characters a token.

Values read out of requests are `object` until a helper here has looked: a provider must survive any JSON.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_PIECE = re.compile(r"\s*\S{1,7}|\s+")
FILLER = " It adds this sentence, and then the same again, because a longer answer was asked for."
QUOTE_CHARS = 200
BIG_DELTA_CHARS = 4096
IMAGE_TOKENS = 85
MESSAGE_TOKENS = 4
SCHEMA_DEPTH = 32


def pieces(text: str) -> Iterator[str]:
    """The tokens of a text, in order; joined they are the text."""
    return (match.group() for match in _PIECE.finditer(text))


def count(text: str) -> int:
    """How many tokens a text is."""
    return sum(1 for _ in pieces(text))


def estimate(chars: int) -> int:
    """Tokens in a prompt of that many characters."""
    return (chars + 3) // 4


@lru_cache(maxsize=64)
def _filler(tokens: int) -> str:
    rounds = tokens // count(FILLER) + 1
    return "".join(islice(pieces(FILLER * rounds), tokens))


@lru_cache(maxsize=16)
def _filler_bytes(size: int) -> str:
    return (FILLER * (size // len(FILLER) + 1))[:size]


def sentence(prompt: str) -> str:
    """An answer that shows the prompt arrived and that nobody thought about it."""
    quoted = " ".join(prompt[: QUOTE_CHARS * 2].split())
    if len(quoted) > QUOTE_CHARS:
        quoted = quoted[:QUOTE_CHARS] + "…"
    said = f"You said: “{quoted}”" if quoted else "You said nothing at all"
    return f"{said}. I am a simulated provider, so I only repeat it, but every byte of this answer took the real way."


@dataclass(frozen=True, slots=True)
class Answer:
    """A text, what it costs, and why it ended: `stop`, `length`, or `stop_sequence` with the sequence."""

    text: str
    tokens: int
    finish: str = "stop"
    stop: str | None = None
    delta_chars: int = 0

    def deltas(self) -> Iterator[str]:
        """The text as a stream gives it: token by token, or in large pieces when it was asked to be big."""
        if not self.delta_chars:
            return pieces(self.text)
        return (self.text[at : at + self.delta_chars] for at in range(0, len(self.text), self.delta_chars))


def sized(text: str, tokens: int | None, big: int | None) -> str:
    """The text, cut or filled up to exactly that many tokens or (ASCII) bytes where one is given."""
    if big is not None:
        return _filler_bytes(big)
    if tokens is None:
        return text
    own = list(islice(pieces(text), tokens))
    return "".join(own) + (_filler(tokens - len(own)) if len(own) < tokens else "")


def limited(text: str, limit: int | None, stops: Sequence[str], *, big: bool = False) -> Answer:
    """The text up to the first stop sequence and within the caller's limit of tokens, whichever is shorter."""
    found = [(at, stop) for stop in stops if stop and (at := text.find(stop)) >= 0]
    at, stop = min(found, default=(len(text), None))
    text = text[:at]
    if big:
        return Answer(text, estimate(len(text)), "stop", delta_chars=BIG_DELTA_CHARS)
    total = count(text)
    if limit is not None and total > limit:
        return Answer("".join(islice(pieces(text), limit)), limit, "length")
    return Answer(text, total, "stop_sequence" if stop else "stop", stop)


def string(value: object) -> str:
    """The value if it is a string, else ""."""
    return value if isinstance(value, str) else ""


def mapping(value: object) -> Mapping[str, object]:
    """The value if it is a JSON object, else {}."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> Sequence[object]:
    """The value if it is a JSON array, else ()."""
    return value if isinstance(value, list) else ()


def integer(value: object) -> int | None:
    """The value if it is a JSON integer (a boolean is none), else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def strings(value: object) -> list[str]:
    """One string or an array of them, as a list."""
    return [value] if isinstance(value, str) else [item for item in items(value) if isinstance(item, str)]


def content_text(content: object) -> str:
    """The text in a message's content: a string, or the text of its parts (nested results included)."""
    if isinstance(content, str):
        return content
    parts = (mapping(part) for part in items(content))
    return " ".join(filter(None, (string(part.get("text")) or content_text(part.get("content")) for part in parts)))


def prompt_of(messages: object) -> str:
    """What the user said last; the last message of any role when no user spoke."""
    said = [mapping(message) for message in items(messages)]
    users = [message for message in said if message.get("role") == "user" and content_text(message.get("content"))]
    chosen = users or said
    return content_text(chosen[-1].get("content")) if chosen else ""


def prompt_tokens(messages: object, *more: object) -> int:
    """What a prompt costs: its text at four characters a token, each message and each image a little."""
    total = 0
    for message in map(mapping, items(messages)):
        content = message.get("content")
        images = sum("image" in string(mapping(part).get("type")) for part in items(content))
        total += MESSAGE_TOKENS + estimate(len(content_text(content))) + IMAGE_TOKENS * images
    return max(1, total + sum(estimate(len(content_text(text))) for text in more))


def _resolve(schema: Mapping[str, object], root: Mapping[str, object]) -> Mapping[str, object]:
    target: object = root
    for step in string(schema.get("$ref")).removeprefix("#/").split("/"):
        target = mapping(target).get(step)
    return mapping(target)


def _typed(schema: Mapping[str, object], root: Mapping[str, object], depth: int) -> object:
    kind = schema.get("type")
    name = string(kind) or next(iter(strings(kind)), "")
    if name == "object" or "properties" in schema:
        properties = mapping(schema.get("properties"))
        return {key: sample(mapping(value), root, depth + 1) for key, value in properties.items()}
    if name == "array":
        length = max(1, integer(schema.get("minItems")) or 1)
        return [sample(mapping(schema.get("items")), root, depth + 1)] * min(length, 100)
    low = schema.get("minimum")
    number = low if isinstance(low, int | float) else 1
    plain: dict[str, object] = {"integer": math.ceil(number), "number": number, "boolean": True, "null": None}
    return plain.get(name, "example")


def sample(schema: Mapping[str, object], root: Mapping[str, object] | None = None, depth: int = 0) -> object:
    """A value that fits a JSON schema, as far as its types, enums, references and first alternatives say."""
    root = schema if root is None else root
    if depth > SCHEMA_DEPTH:
        return None
    if "$ref" in schema:
        return sample(_resolve(schema, root), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if items(schema.get("enum")):
        return items(schema["enum"])[0]
    for union in ("anyOf", "oneOf", "allOf"):
        if items(schema.get(union)):
            return sample(mapping(items(schema[union])[0]), root, depth + 1)
    return _typed(schema, root, depth)
