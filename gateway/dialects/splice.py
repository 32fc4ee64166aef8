"""Changes of a body, as edits on the caller's own bytes: nothing is parsed again and nothing else moves.

An `Edit` replaces a span; these functions make the few edits a route needs and apply them with one copy. Offsets are
those of `RequestFacts`, which the dialect read from the same body. Insertions go to the front of an object, where no
comma has to be looked for.
"""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Final

import msgspec

from gateway.dialects.base import Edit, RequestFacts
from gateway.dialects.jsonguard import read_object

_ASK: Final = b'"include_usage":true'
_start = itemgetter(0)


def apply(body: bytes, edits: Sequence[Edit]) -> bytes:
    """The body with all edits made. Edits may come in any order; two insertions at one place keep theirs.

    Raises ValueError when edits overlap or leave the body: then the caller's facts are not this body's.
    """
    if len(edits) == 1:
        return replace(body, *edits[0])
    view = memoryview(body)
    pieces: list[bytes | memoryview] = []
    at = 0
    for start, end, put in sorted(edits, key=_start):
        if not at <= start <= end <= len(body):
            raise ValueError("edits overlap, or are outside of the body")
        pieces += (view[at:start], put)
        at = end
    pieces.append(view[at:])
    return b"".join(pieces)


def replace(body: bytes, start: int, end: int, put: bytes) -> bytes:
    """The body with one edit made. Raises ValueError when it leaves the body."""
    if not 0 <= start <= end <= len(body):
        raise ValueError("an edit is outside of the body")
    return b"".join((body[:start], put, body[end:]))


def set_model(facts: RequestFacts, model: str) -> Edit:
    """Replace the model's name: a JSON string, or a form field's bare value."""
    put = model.encode() if facts.form else msgspec.json.encode(model)
    return Edit(facts.model_start, facts.model_end, put)


def ask_usage(body: bytes, facts: RequestFacts) -> Edit:
    """Ask for stream usage: within the caller's `stream_options` where it sent some, else as a new member."""
    if facts.stream_options is None:
        return insert_members(facts, {"stream_options": b"{%b}" % _ASK})
    start, end = facts.stream_options
    said = body[start:end]
    if said == b"null":
        return Edit(start, end, b"{%b}" % _ASK)
    options = read_object(said)
    if "include_usage" in options.members:  # false or null: the one case where a value of the caller's is replaced
        value_start, value_end = options.span("include_usage")
        return Edit(start + value_start, start + value_end, b"true")
    return Edit(start + 1, start + 1, _ASK + b"," if options.members else _ASK)


def insert_members(facts: RequestFacts, members: Mapping[str, bytes]) -> Edit:
    """Insert members, given as name to encoded JSON, in front of the caller's own.

    The caller picks names that are not in `facts.names`; a form takes no members (ValueError).
    """
    if facts.form:
        raise ValueError("members cannot be inserted into a form")
    joined = b",".join([b"%b:%b" % (msgspec.json.encode(name), value) for name, value in members.items()])
    if joined and not facts.empty:
        joined += b","
    return Edit(facts.members_at, facts.members_at, joined)
