"""Token counts of Anthropic's answers, brought to the meaning of `record.Usage`.

Anthropic counts cache reads and cache writes beside `input_tokens`; here they are part of it. In a stream
`message_start` says the input and `message_delta` the running totals, which may name only some of the counts: a later
count replaces an earlier one, a missing one leaves it.
"""

from typing import Final

import msgspec

from gateway.dialects import events
from gateway.record import MAX_TOKENS, TokenCount, Usage


class Counts(msgspec.Struct, gc=False):
    """A `usage` object as sent; None is what it does not say."""

    input_tokens: TokenCount | None = None
    output_tokens: TokenCount | None = None
    cache_read_input_tokens: TokenCount | None = None
    cache_creation_input_tokens: TokenCount | None = None
    output_tokens_details: dict[str, object] | None = None


class _Answer(msgspec.Struct, gc=False):
    usage: Counts | None = None
    input_tokens: TokenCount | None = None  # of a token count, which is the whole answer


_answer: Final = msgspec.json.Decoder(_Answer)


def of_answer(body: bytes) -> Usage | None:
    """Usage of a whole JSON answer, None where it says none. A token count uses nothing."""
    try:
        counts = events.decode(_answer, body).usage
    except (ValueError, RecursionError):
        return None
    return to_usage(counts) if counts is not None else None


def merge(before: Counts | None, now: Counts) -> Counts:
    """Running totals of a stream: what `now` says, else what was said before."""
    if before is None:
        return now
    for field in Counts.__struct_fields__:
        if getattr(now, field) is None:
            setattr(now, field, getattr(before, field))
    return now


def to_usage(counts: Counts) -> Usage:
    """The same tokens, with cached input inside of the input."""
    read, written = counts.cache_read_input_tokens or 0, counts.cache_creation_input_tokens or 0
    thinking = (counts.output_tokens_details or {}).get("thinking_tokens")
    return Usage(
        input_tokens=(counts.input_tokens or 0) + read + written,
        output_tokens=counts.output_tokens or 0,
        cache_read_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=thinking if isinstance(thinking, int) and 0 <= thinking <= MAX_TOKENS else 0,
    )
