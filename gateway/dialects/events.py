"""The data inside one SSE event, whatever its line ends, comments, fields and number of data lines.

Events nearly always are one `data: ` line, with or without an `event: ` line before it; those are cut out directly.
Everything else is read line by line as the SSE standard says. Rule: WHATWG HTML, "interpreting an event stream".
"""

import re
from typing import Final, TypeVar

import msgspec

from gateway.dialects.jsonguard import replace_surrogates

T = TypeVar("T")

ABSENT: Final[msgspec.Raw] = msgspec.Raw()  # a Raw field's default: msgspec knows no `Raw | None`

_NULL: Final = b"null"
_BOM: Final = b"\xef\xbb\xbf"
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_BEHIND_NAME: Final = b"\ndata: "


def said(raw: msgspec.Raw) -> bool:
    """Whether a Raw field is there and not null."""
    return len(raw) > len(_NULL) or (len(raw) > 0 and bytes(raw) != _NULL)


def data_of(event: bytes) -> bytes:
    """The event's data, its lines joined by LF; b"" for a comment or an event without data.

    White space may follow the data, which JSON decoders ignore.
    """
    if event.startswith(b"data: "):
        if event.find(b"\n") == len(event) - 2:
            return event[6:]
    elif event.startswith(b"event: "):
        at = event.find(_BEHIND_NAME)
        if at > 0 and event.find(b"\n") == at and event.find(b"\n", at + 1) == len(event) - 2:
            return event[at + 7 :]
    return b"\n".join(_values(event, b"data"))


def name_of(event: bytes) -> bytes:
    """The event's name, b"" when it has none."""
    if b"event" not in event:
        return b""
    names = _values(event, b"event")
    return names[-1] if names else b""


def _values(event: bytes, field: bytes) -> list[bytes]:
    values: list[bytes] = []
    for line in _LINE_END.split(event.removeprefix(_BOM)):
        name, _, value = line.partition(b":")
        if name == field:
            values.append(value.removeprefix(b" "))
    return values


def decode(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    """Decode event data. Lone surrogates, legal JSON that msgspec refuses, are stepped over.

    Raises ValueError (msgspec's) for what is no JSON, or not of the decoder's shape.
    """
    try:
        return decoder.decode(data)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        patched = replace_surrogates(data)
        if patched == data:
            raise
        return decoder.decode(patched)
