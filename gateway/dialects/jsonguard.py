"""The top level of a JSON object, read so that the provider cannot read it differently.

We decide on a few members (`model`, `stream`, token limits …) and pass the bytes on as they came. That is sound only
where every parser would see the same members, so a decision member that stands twice, in another case, with the wrong
type, or spelled with escapes is refused, and so is what strict parsers refuse: invalid UTF-8, a byte order mark,
nesting above 128, anything RFC 8259 does not allow.

msgspec splits the body into members; it keeps the last of two equal keys silently. That none was dropped is proved by
length: a compact body is exactly as long as its members, in the spelling of `json.dumps` it equals its members joined
again. Whatever is spelled otherwise is walked once more, slowly and exactly. All work is linear in the body's length.

msgspec does not look into what it steps over, so UTF-8 is checked apart. To decode a large body for that costs as much
as to read it (0.3 µs a KB, three times that where the text takes megabytes), so a `Bulk` that was decoded anyway is its
own proof, and only what stands beside it is looked at.

Lone surrogates (half of a pair, spelled as an escape), which msgspec refuses even where it only skips, are legal JSON
and pass: they are checked on a copy of the same length with every surrogate replaced.

Left out: which members matter to whom (each dialect's rules), and what stands inside of them.
"""

import json
import re
from collections.abc import Mapping
from itertools import accumulate
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

import msgspec

from gateway.errors import InvalidRequest

MAX_DEPTH: Final = 128
_MIN_DEEP_BYTES: Final = 2 * MAX_DEPTH
MAX_MEMBERS: Final = 1000  # of the top level; the longest published request has about 40
MAX_DIGITS: Final = 15  # of a decision number: stays exact in a double

T = TypeVar("T")

_BOM: Final = b"\xef\xbb\xbf"
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_string: Final = msgspec.json.Decoder(str)

_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_PATCH: Final = rb"\ufffd"  # as long as what it replaces, so every offset stays; in no key of ours
_TEMPLATE: Final = _PATCH.replace(b"\\", rb"\\")
_WHOLE: Final = re.compile(rb"-?[0-9]{1,%d}|null" % MAX_DIGITS)
_KEY: Final = re.compile(rb'[ \t\r\n]*("[^"\\]*(?:\\.[^"\\]*)*")[ \t\r\n]*:[ \t\r\n]*', re.DOTALL)
_AFTER: Final = re.compile(rb"[ \t\r\n]*[,}]")
_OPEN: Final = re.compile(rb"[ \t\r\n]*\{")

# Values are stepped over, not kept: `len` stands in for the conversion of numbers, which is quadratic for long ones.
_step: Final = json.JSONDecoder(parse_int=len, parse_float=len)

_STRUCTURE: Final = b'[]{}"'
_NOT_STRUCTURE: Final = bytes(set(range(256)) - set(_STRUCTURE))
_AS_STEPS: Final = bytes.maketrans(_STRUCTURE, b"\x01\xff\x01\xff\x00")  # +1 and -1 as signed bytes
_PEELS: Final = 8  # as deep as bodies usually are


class Kind(msgspec.Struct, frozen=True):
    """What JSON type a decision member must have; null is always allowed and means absent."""

    name: str  # as an error says it
    first: bytes  # the bytes its values can begin with


STRING: Final = Kind("a string", b'"n')
BOOL: Final = Kind("true or false", b"tfn")
WHOLE: Final = Kind(f"a whole number of at most {MAX_DIGITS} digits", b"-0123456789n")
OBJECT: Final = Kind("an object", b"{n")
TEXT_OR_OBJECT: Final = Kind("a string or an object", b'"{n')
ANY: Final = Kind("any value", b"")  # only its spelling and uniqueness matter

Kinds = Mapping[str, Kind]
Values = dict[str, bytes]


class Bulk(NamedTuple):
    """The member that holds nearly all of a body, and a decoder of the shape it nearly always has.

    The shape must keep every string and skip nothing: no `Raw` in it, no unknown fields.
    """

    name: str
    decoder: msgspec.json.Decoder[Any]


class Rules:
    """Decision members, by name, and their kinds; one object for good, since what it comes to is remembered."""

    __slots__ = ("kinds",)

    def __init__(self, kinds: Kinds) -> None:
        self.kinds = kinds


class Names:
    """The names of an object's members, and what follows from them alone: callers send the same ones again and again.

    `framing` is the length of a compact object without its values; `ruled`, by rules, what has to be looked at.
    """

    __slots__ = ("every", "framing", "ruled")

    def __init__(self, names: tuple[str, ...]) -> None:
        self.every = frozenset(names)
        self.framing = 1 + len("".join(names)) + 4 * len(names)
        self.ruled: dict[Rules, tuple[tuple[str, Kind], ...]] = {}


_MAX_KNOWN: Final = 256
_MAX_KNOWN_MEMBERS: Final = 64
_MAX_KNOWN_CHARS: Final = 2048
_known: Final[dict[tuple[str, ...], Names]] = {}


def _named(members: dict[str, msgspec.Raw]) -> Names:
    """What is known of these names; of a bounded number, which callers choose, it is remembered."""
    names = tuple(members)
    known = _known.get(names)
    if known is None:
        known = Names(names)
        if len(names) <= _MAX_KNOWN_MEMBERS and known.framing <= _MAX_KNOWN_CHARS:
            if len(_known) >= _MAX_KNOWN:
                _known.clear()
            _known[names] = known
    return known


class Document(msgspec.Struct, gc=False):
    """A body's top level. `members` maps each name to its value's bytes (of two equal names the last one's).

    `value_bytes` is the length of all values together. `behind_brace` is the offset where a member can be inserted.
    `odd` holds names that stand twice or are spelled with escapes. Spans are offsets into the body as sent. `decoded`
    is the bulk, None where it is absent or of another shape.
    """

    members: dict[str, msgspec.Raw]
    names: Names
    value_bytes: int
    decoded: Any
    behind_brace: int = 1
    odd: frozenset[str] = frozenset()
    padding: int = 0  # bytes after ":" and after ",": 0 compact, 1 as json.dumps
    walked: dict[str, tuple[int, int]] | None = None
    patched: bool = False  # surrogates in the values are replaced by U+FFFD

    def span(self, name: str) -> tuple[int, int]:
        """Start and end of a present member's value."""
        if self.walked is not None:
            return self.walked[name]
        at = 1
        for key, value in self.members.items():
            at += len(key) + 3 + self.padding
            if key == name:
                return at, at + len(value)
            at += len(value) + 1 + self.padding
        raise KeyError(name)


def read_object(body: bytes, bulk: Bulk | None = None) -> Document:
    """Split a body into its top-level members. Raises InvalidRequest; depth is `check_depth`'s."""
    source = body
    try:
        document = _split(body, bulk)
        if not (body.isascii() or _decoded_all_but_ascii(document, len(body), bulk)):
            body.decode()
    except RecursionError:
        _refuse_depth()
    except ValueError as error:
        source = _without_surrogates(body, error)
        document = _split(source, bulk)
        document.patched = source is not body
    members = document.members
    size = document.names.framing + document.value_bytes
    if size == len(body) and members:
        return document
    if size + 2 * len(members) - 1 == len(body) and _as_dumped(members) == source:
        document.padding = 1
    else:
        _walk(source, document)
    return document


def check(document: Document, rules: Rules) -> Values:
    """Refuse decision members that two parsers could read differently. Raises InvalidRequest naming the member.

    Returns the JSON of those present, without nulls and without members of kind ANY.
    """
    values: Values = {}
    members, ruled = document.members, document.names.ruled.get(rules)
    if ruled is None:
        ruled = document.names.ruled[rules] = _ruled(members, rules.kinds)
    for name, kind in ruled:
        value = bytes(members[name])
        if value[0] not in kind.first or (kind is WHOLE and not _is_whole(value)):
            raise InvalidRequest(f"`{name}` must be {kind.name}", param=name)
        if document.patched and kind is STRING and _PATCH in value:
            raise InvalidRequest(f"`{name}` holds half of a surrogate pair: send valid Unicode", param=name)
        if value != b"null":
            values[name] = value
    for name in document.odd:
        if name.casefold() in rules.kinds:
            raise InvalidRequest(
                f"`{name}` stands twice in the request, or is spelled with escapes: send it once, in plain letters",
                param=name,
            )
    return values


def check_depth(document: Document, proven: str = "") -> None:
    """Refuse nesting above 128 levels, the body itself being the first.

    `proven` names a member whose shape is already known to be shallow. Raises InvalidRequest.
    """
    if document.value_bytes - (len(document.members[proven]) if proven else 0) < _MIN_DEEP_BYTES:
        return
    for name, raw in document.members.items():
        if len(raw) >= _MIN_DEEP_BYTES and name != proven and too_deep(bytes(raw), MAX_DEPTH - 1):
            _refuse_depth()


def too_deep(value: bytes, limit: int) -> bool:
    """Whether valid JSON nests deeper than `limit`. Brackets inside strings do not count."""
    if value.count(b"[") + value.count(b"{") <= limit:
        return False
    bare = value.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in value else value
    # Removing two quotes that meet changes for no other byte whether it stands inside a string.
    quotes = bare.translate(None, _NOT_STRUCTURE).replace(b'""', b"")
    brackets = b"".join(quotes.split(b'"')[::2]).translate(bytes.maketrans(b"[]", b"{}"))
    for peeled in range(_PEELS + 1):
        if len(brackets) <= 2 * (limit - peeled):
            return False
        if not brackets:
            return True
        brackets = brackets.replace(b"{}", b"")  # every pass takes exactly the innermost level
    steps = memoryview(brackets.translate(_AS_STEPS)).cast("b")
    return max(accumulate(steps), default=0) > limit - _PEELS - 1


def text(values: Values, name: str) -> str:
    """A string member's text, "" where it is absent. `values` come from `check`, which knows it to be a string."""
    value = values.get(name)
    return _string.decode(value) if value is not None else ""


def replace_surrogates(data: bytes) -> bytes:
    """The same JSON, byte for byte as long, with every surrogate escape replaced by one msgspec accepts."""
    return _SURROGATE.sub(_TEMPLATE, data)


def _split(source: bytes, bulk: Bulk | None) -> Document:
    members = _members.decode(source)
    if len(members) > MAX_MEMBERS:
        _refuse_members()
    decoded = plain(bulk.decoder, members[bulk.name]) if bulk is not None and bulk.name in members else None
    return Document(members, _named(members), sum(map(len, members.values())), decoded)


def _decoded_all_but_ascii(document: Document, size: int, bulk: Bulk | None) -> bool:
    """Whether a body of `size` bytes is valid UTF-8 without another look: all of it is ASCII but what was decoded.

    Of a compact body no byte is outside of the names and the last value of each, so none was stepped over unseen.
    """
    if bulk is None or document.decoded is None or document.names.framing + document.value_bytes != size:
        return False
    return all(bytes(raw).isascii() for name, raw in document.members.items() if name != bulk.name)


def plain(decoder: msgspec.json.Decoder[T], raw: msgspec.Raw) -> T | None:
    """A member that has exactly the decoder's shape, at every occurrence of every key; None for any other."""
    try:
        return decoder.decode(raw)
    except (ValueError, RecursionError):
        return None


def _ruled(members: dict[str, msgspec.Raw], kinds: Kinds) -> tuple[tuple[str, Kind], ...]:
    """The members whose values matter. Raises InvalidRequest for one whose name differs from theirs only in case."""
    for name in members:
        if name not in kinds and not (name.islower() and name.isascii()) and name.casefold() in kinds:
            _refuse_case(name)
    return tuple([(name, kind) for name in members if (kind := kinds.get(name, ANY)) is not ANY])


def _is_whole(value: bytes) -> bool:
    return (len(value) <= MAX_DIGITS and value.isdigit()) or _WHOLE.fullmatch(value) is not None


def _as_dumped(members: dict[str, msgspec.Raw]) -> bytes:
    return b"{" + b", ".join([b'"%b": %b' % (key.encode(), raw) for key, raw in members.items()]) + b"}"


def _without_surrogates(body: bytes, error: ValueError) -> bytes:
    """A copy that msgspec can read, or the refusal of a body that is wrong for another reason."""
    source = replace_surrogates(body) if b"\\u" in body else body
    if source != body:
        try:
            _members.decode(source)
            source.decode()
        except RecursionError:
            _refuse_depth()
        except ValueError as again:
            raise InvalidRequest(_why(body, again)) from None
        return source
    raise InvalidRequest(_why(body, error)) from None


def _why(body: bytes, error: ValueError) -> str:
    """What is wrong with a body that is no JSON object, and what to do about it."""
    if not body.strip():
        return "the request body is empty: send a JSON object"
    if body.startswith(_BOM):
        return "the request body begins with a byte order mark: send plain UTF-8 without it"
    if isinstance(error, UnicodeDecodeError):
        return "the request body is not valid UTF-8: encode it as UTF-8"
    if isinstance(error, msgspec.ValidationError):
        return 'the request body must be a JSON object, such as {"model": …}'
    reason = str(error).removeprefix("JSON is malformed: ")
    if "truncated" in reason:
        reason = "it ends too early"
    return f"the request body is not valid JSON: {reason}"


def _walk(source: bytes, document: Document) -> None:
    """Find the members' exact places, in whatever legal spelling; the JSON is known to be valid."""
    text = source.decode("latin-1")  # one character per byte
    opening = _OPEN.match(source)
    start = opening.end() if opening else 0
    walked: dict[str, tuple[int, int]] = {}
    odd: set[str] = set()
    at, count = start, 0
    while match := _KEY.match(source, at):
        spelled = match.group(1)
        name = _string.decode(spelled)
        if name in walked or b"\\" in spelled:
            odd.add(name)
        value_at = match.end()
        at = _end_of_value(text, value_at)
        before = walked.get(name)
        if before is not None and too_deep(source[before[0] : before[1]], MAX_DEPTH - 1):
            _refuse_depth()  # `check_depth` sees the last of two equal names only
        walked[name] = (value_at, at)
        count += 1
        if count > MAX_MEMBERS:
            _refuse_members()
        after = _AFTER.match(source, at)
        at = after.end() if after else len(source)
    document.behind_brace, document.odd, document.walked = start, frozenset(odd), walked


def _end_of_value(text: str, start: int) -> int:
    try:
        return _step.raw_decode(text, start)[1]
    except RecursionError:
        _refuse_depth()


def _refuse_case(name: str) -> NoReturn:
    raise InvalidRequest(
        f"`{name}` differs from `{name.casefold()}` only in case: spell it `{name.casefold()}`", param=name
    )


def _refuse_members() -> NoReturn:
    raise InvalidRequest(f"the request body has more than {MAX_MEMBERS} members") from None


def _refuse_depth() -> NoReturn:
    raise InvalidRequest(f"the request body nests deeper than {MAX_DEPTH} levels: flatten it") from None
