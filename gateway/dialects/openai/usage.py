"""Token counts of OpenAI's answers, under both of its vocabularies.

Chat, completions and embeddings say prompt/completion tokens, everything newer input/output tokens; the details have
three spellings. One struct takes them all, since no answer uses two. Transcriptions billed by duration report seconds
and no tokens: that is no usage here. Counts that are no whole numbers, or cannot be, are no usage either; nothing is
guessed.
"""

from typing import Final

import msgspec

from gateway.dialects import events
from gateway.record import TokenCount, Usage


class _Details(msgspec.Struct, gc=False):
    cached_tokens: TokenCount | None = None
    cache_write_tokens: TokenCount | None = None
    reasoning_tokens: TokenCount | None = None
    audio_tokens: TokenCount | None = None


class _Counts(msgspec.Struct, gc=False):
    prompt_tokens: TokenCount | None = None
    completion_tokens: TokenCount | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens: TokenCount | None = None
    output_tokens: TokenCount | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None
    input_token_details: _Details | None = None


class _Answer(msgspec.Struct, gc=False):
    usage: _Counts | None = None


class _RawAnswer(msgspec.Struct, gc=False):
    usage: msgspec.Raw = events.ABSENT


_counts: Final = msgspec.json.Decoder(_Counts)
_answer: Final = msgspec.json.Decoder(_Answer)
_raw_answer: Final = msgspec.json.Decoder(_RawAnswer)
_NO_DETAILS: Final = _Details()


def parse(usage: msgspec.Raw | bytes) -> Usage | None:
    """A `usage` object as Usage, None for null and for what has no token counts."""
    try:
        return _usage(_counts.decode(usage))
    except ValueError:
        return None


def of_answer(body: bytes) -> Usage | None:
    """Usage of a whole JSON answer, None where it says none or is no JSON (audio, plain text)."""
    try:
        counts = _answer.decode(body).usage
    except (ValueError, RecursionError):
        return _of_odd_answer(body)
    return _usage(counts) if counts is not None else None


def _of_odd_answer(body: bytes) -> Usage | None:
    """The same for one with lone surrogates, or with a usage that is not what it should be."""
    try:
        usage = events.decode(_raw_answer, body).usage
    except (ValueError, RecursionError):
        return None
    return parse(usage) if events.said(usage) else None


def _usage(counts: _Counts) -> Usage | None:
    taken = counts.input_tokens if counts.prompt_tokens is None else counts.prompt_tokens
    given = counts.output_tokens if counts.completion_tokens is None else counts.completion_tokens
    if taken is None and given is None:
        return None
    inside = counts.prompt_tokens_details or counts.input_tokens_details or counts.input_token_details or _NO_DETAILS
    outside = counts.completion_tokens_details or counts.output_tokens_details or _NO_DETAILS
    if inside is _NO_DETAILS and outside is _NO_DETAILS:
        return Usage(taken or 0, given or 0)
    return Usage(
        input_tokens=taken or 0,
        output_tokens=given or 0,
        cache_read_tokens=inside.cached_tokens or 0,
        cache_write_tokens=inside.cache_write_tokens or 0,
        reasoning_tokens=outside.reasoning_tokens or 0,
        audio_input_tokens=inside.audio_tokens or 0,
        audio_output_tokens=outside.audio_tokens or 0,
    )
