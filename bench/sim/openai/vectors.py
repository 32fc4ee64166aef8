"""POST /v1/embeddings and /v1/moderations: numbers about texts, derived from the texts alone.

The same text has the same vector in every run. A moderation input is flagged where it says "kill" or "hurt",
which is all a test needs to see both outcomes.
"""

from __future__ import annotations

import base64
import hashlib
import math
import struct

from bench.sim import text
from bench.sim.ask import Ask, new_id
from bench.sim.wire import Refused, Reply, json_reply

DIMENSIONS = 1536
MAX_DIMENSIONS = 8192
VIOLENT_WORDS = ("kill", "hurt")
TEXT_ONLY = ("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent")
TEXT_AND_IMAGE = ("self-harm", "self-harm/intent", "self-harm/instructions", "sexual", "violence", "violence/graphic")
CATEGORIES = (*TEXT_ONLY, "sexual/minors", *TEXT_AND_IMAGE)


def embed(ask: Ask) -> Reply:
    """Answer an embeddings request: one vector for each text, or for each array of tokens."""
    given = ask.require("input", str, list)
    several = text.items(given)
    tokens_given = bool(several) and all(text.integer(item) is not None for item in several)
    inputs = [given] if isinstance(given, str) or tokens_given else list(several)
    dimensions = ask.limit("dimensions") or DIMENSIONS
    if not inputs or dimensions > MAX_DIMENSIONS:
        raise Refused(400, "Invalid 'input' or 'dimensions'.", param="input")
    packed = ask.body.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(vector(str(item), dimensions), packed=packed)}
        for index, item in enumerate(inputs)
    ]
    total = sum(text.estimate(len(item)) if isinstance(item, str) else len(text.items(item)) for item in inputs)
    usage = {"prompt_tokens": max(1, total), "total_tokens": max(1, total)}
    body = {"object": "list", "data": data, "model": ask.model}
    return json_reply(body if ask.behaviour.nousage else {**body, "usage": usage})


def vector(said: str, dimensions: int) -> list[float]:
    """A unit vector that depends on the text alone."""
    stream = hashlib.shake_128(said.encode("utf-8", "surrogatepass")).digest(2 * dimensions)
    raw = [number - 32767.5 for number in struct.unpack(f"<{dimensions}H", stream)]
    length = math.sqrt(sum(number * number for number in raw))
    return [number / length for number in raw]


def _encoded(numbers: list[float], *, packed: bool) -> object:
    if not packed:
        return numbers
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def moderate(ask: Ask) -> Reply:
    """Answer a moderation request: a result for each string, one for an array of parts."""
    given = ask.require("input", str, list)
    several = text.items(given)
    inputs = text.strings(given) if not several or isinstance(several[0], str) else [text.content_text(given)]
    results = [_judged(said) for said in inputs]
    return json_reply({"id": new_id("modr-"), "model": ask.model or "omni-moderation-latest", "results": results})


def _judged(said: str) -> dict[str, object]:
    violent = any(word in said.lower() for word in VIOLENT_WORDS)
    return {
        "flagged": violent,
        "categories": {name: violent and name == "violence" for name in CATEGORIES},
        "category_scores": {name: 0.93 if violent and name == "violence" else 0.0004 for name in CATEGORIES},
        "category_applied_input_types": {name: ["text"] for name in CATEGORIES},
    }
