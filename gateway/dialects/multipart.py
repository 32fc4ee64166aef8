"""Reads the decision fields of a multipart form while it arrives, and changes nothing.

`FormReader` is fed the body in whatever pieces the socket gave and looks for the fields we decide on (`model`,
`stream`, `user`, `n` …) and for fields that name stored objects; file contents are stepped over and never kept. A
form is accepted only where every parser would find the same parts: no preamble, CRLF line ends, no folded or repeated
headers, field names quoted or plain tokens, decision fields once, by their own name, without filename, encoding or
charset. Forms that ordinary clients make are all like that. Sources: RFC 2046 (5.1), RFC 7578.

Invariants: at most one header block or one decision value is kept (both bounded), whatever the body's length; work is
linear; offsets are those of the body as sent. `facts` is there as soon as `model` is known and lies in what was fed.
A form must be read to its end even then: a second `model` further on is refused by `feed`, a missing end by `finish`.
Once the form is on its way (`release`), a decision field that turns up late is refused too, for we decided without it.
"""

import re
from enum import Enum
from typing import Final, NoReturn
from urllib.parse import unquote

from gateway.dialects.base import RequestFacts
from gateway.dialects.facts import checked_model
from gateway.errors import InvalidRequest

MAX_HEADER_BYTES: Final = 8192  # of one part
MAX_VALUE_BYTES: Final = 4096  # of one decision field
MAX_PARTS: Final = 1000

_DECISIONS: Final = frozenset({"model", "stream", "user", "n", "prompt", "response_format", "stream_options"})
_KEPT: Final = frozenset({"model", "stream", "user", "n"})
_STORED: Final = frozenset({"file_id", "file_ids", "image_file_id", "mask_file_id", "vector_store_ids", "container_id"})
_CHARSET: Final = "_charset_"  # would change how every other field is read

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_BOUNDARY: Final = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_PARAMETER: Final = re.compile(rf'\s*;\s*({_WORD})\s*=\s*(?:"([^"\\\r\n]*)"|({_WORD}))')
_CONTENT_PARAMETER: Final = re.compile(rf'\s*;\s*({_WORD})=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))')
_WHOLE: Final = re.compile(r"-?[0-9]{1,15}")
_TRUTH: Final = {"true": True, "1": True, "false": False, "0": False}
_PLAIN_ENCODINGS: Final = frozenset({"7bit", "8bit", "binary"})


class _State(Enum):
    BOUNDARY = 0  # just behind a boundary: its line has to end, or the form
    HEADERS = 1
    VALUE = 2  # of a field we keep
    SKIP = 3  # of anything else
    END = 4


def boundary_of(content_type: bytes) -> bytes:
    """The boundary that a multipart content-type names. Raises InvalidRequest for none, two, or an illegal one."""
    kind, _, rest = content_type.decode("latin-1").partition(";")
    found: list[str] = []
    at, parameters = 0, ";" + rest
    if kind.strip().lower() == "multipart/form-data":
        while match := _CONTENT_PARAMETER.match(parameters, at):
            at = match.end()
            if match.group(1).lower() == "boundary":
                found.append(match.group(3) if match.group(2) is None else match.group(2))
    if len(found) != 1 or parameters[at:].strip(" \t;") or not _BOUNDARY.fullmatch(found[0]):
        raise InvalidRequest("the content-type must be `multipart/form-data; boundary=…` with one legal boundary")
    return found[0].encode("ascii")


class FormReader:
    """One form's reader, made from its content-type. Raises InvalidRequest where that names no boundary."""

    def __init__(self, content_type: bytes) -> None:
        self._facts = RequestFacts("", members_at=0, form=True)
        self._released = False
        self._mark = b"\r\n--" + boundary_of(content_type)
        self._state = _State.SKIP
        self._data = bytearray(b"\r\n")  # the first boundary needs no line end in front of it: this is one
        self._offset = -2  # of _data[0] in the body
        self._searched = 0  # no boundary begins before here in _data
        self._name = ""
        self._parts = 0
        self._names: set[str] = set()
        self._stored: list[str] = []

    @property
    def facts(self) -> RequestFacts | None:
        """What is known so far, None until the model is; whole after `finish`."""
        return self._facts if self._facts.model else None

    def release(self) -> None:
        """The form is on its way to a provider by what is known now: decision fields that follow are refused."""
        self._released = True

    def feed(self, chunk: bytes) -> None:
        """Read more of the body. Raises InvalidRequest as soon as the form is wrong or ambiguous."""
        self._data += chunk
        while self._step():
            pass

    def finish(self) -> RequestFacts:
        """The facts of the whole form. Raises InvalidRequest when it ended early or named no model."""
        if self._state is not _State.END:
            raise InvalidRequest("the form ends without its closing boundary: it was cut, or the boundary is wrong")
        checked_model(self._facts.model)
        return self._facts

    # --- the states: each consumes something and returns True, or needs more bytes and returns False ----------------

    def _step(self) -> bool:
        match self._state:
            case _State.BOUNDARY:
                return self._after_boundary()
            case _State.HEADERS:
                return self._headers()
            case _State.VALUE:
                return self._value()
            case _State.SKIP:
                return self._skip()
            case _State.END:
                return self._epilogue()

    def _after_boundary(self) -> bool:
        if len(self._data) < len(b"\r\n"):
            return False
        end = bytes(self._data[:2])
        if end == b"--":
            self._state = _State.END
        elif end == b"\r\n":
            self._parts += 1
            self._state = _State.HEADERS
        else:
            _refuse("a boundary line has something behind the boundary")
        if self._parts > MAX_PARTS:
            _refuse(f"it has more than {MAX_PARTS} parts")
        self._consume(2)
        return True

    def _headers(self) -> bool:
        if self._data.startswith(b"\r\n"):
            _refuse("a part has no header")
        end = self._data.find(b"\r\n\r\n", max(self._searched - 3, 0))
        if end < 0:
            self._searched = len(self._data)
            if len(self._data) > MAX_HEADER_BYTES:
                _refuse(f"a part's header is longer than {MAX_HEADER_BYTES} bytes")
            return False
        headers = bytes(self._data[:end])
        self._name = self._field(headers)
        self._state = _State.VALUE if self._name in _KEPT or _stored_name(self._name) else _State.SKIP
        self._consume(end + 2)  # the last line end may begin the boundary of an empty part
        self._searched = 0
        return True

    def _value(self) -> bool:
        end = self._boundary()
        if end < 0:
            if len(self._data) > MAX_VALUE_BYTES + len(self._mark) + 2:
                self._too_long()
            return False
        if end == 0:
            _refuse(f"the field `{self._name}` has no value")
        value = bytes(self._data[2:end])
        if len(value) > MAX_VALUE_BYTES:
            self._too_long()
        self._take(value, self._offset + 2)
        self._behind(end)
        return True

    def _skip(self) -> bool:
        end = self._boundary()
        if self._parts == 0 and (end > 0 or (end < 0 and not self._may_begin())):
            _refuse("it does not begin with its boundary")
        if end < 0:
            self._consume(max(len(self._data) - len(self._mark) + 1, 0))
            return False
        self._behind(end)
        return True

    def _epilogue(self) -> bool:
        if bytes(self._data).strip(b"\r\n"):
            _refuse("bytes follow its closing boundary")
        self._consume(len(self._data))
        return False

    # --- helpers ----------------------------------------------------------------------------------------------------

    def _may_begin(self) -> bool:
        return self._mark.startswith(bytes(self._data[: len(self._mark)]))

    def _boundary(self) -> int:
        at = self._data.find(self._mark, self._searched)
        if at < 0:
            self._searched = max(len(self._data) - len(self._mark) + 1, 0)
        return at

    def _behind(self, boundary_at: int) -> None:
        self._state = _State.BOUNDARY
        self._consume(boundary_at + len(self._mark))

    def _consume(self, size: int) -> None:
        del self._data[:size]
        self._offset += size
        self._searched = max(self._searched - size, 0) if self._state is _State.SKIP else 0

    def _too_long(self) -> NoReturn:
        raise InvalidRequest(f"`{self._name}` is longer than {MAX_VALUE_BYTES} bytes", param=self._name)

    def _field(self, headers: bytes) -> str:
        """The field a part's header names; refuses what parsers read differently."""
        name, file_name, encoded = _disposition(headers)
        folded = unquote(name).casefold().strip()
        if folded == _CHARSET:
            _refuse("a `_charset_` field changes how other fields are read")
        if folded in _DECISIONS:
            if name != folded:
                raise InvalidRequest(f"the form field `{name}` must be spelled `{folded}`", param=folded)
            if name in self._names:
                raise InvalidRequest(f"the form field `{name}` stands twice: send it once", param=name)
            if file_name or encoded:
                raise InvalidRequest(f"the form field `{name}` must be plain text, not a file", param=name)
        if self._released and (folded in _KEPT or _stored_name(name)):
            raise InvalidRequest(f"the form field `{name}` must come before the file", param=name)
        self._names.add(name)
        self._facts.names = frozenset(self._names)
        return name

    def _take(self, value: bytes, start: int) -> None:
        name, facts = self._name, self._facts
        try:
            text = value.decode()
        except UnicodeDecodeError:
            raise InvalidRequest(f"`{name}` is not valid UTF-8", param=name) from None
        if name == "model":
            facts.model = checked_model(text)
            facts.model_start, facts.model_end = start, start + len(value)
        elif name == "stream":
            facts.stream = _truth(text)
        elif name == "user":
            facts.end_user = text
        elif name == "n":
            if not _WHOLE.fullmatch(text):
                raise InvalidRequest("`n` must be a whole number", param="n")
            facts.n = max(int(text), 1)
        elif text:
            self._stored.append(name)
            facts.stored = tuple(self._stored)


def _disposition(headers: bytes) -> tuple[str, bool, bool]:
    """Field name, whether the part is a file, and whether its bytes are encoded, of one part's header block."""
    try:
        lines = headers.decode().split("\r\n")
    except UnicodeDecodeError:
        _refuse("a part's header is not valid UTF-8")
    disposition: list[str] = []
    encoded = False
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not re.fullmatch(_WORD, name) or re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value):
            _refuse("a part's header has an illegal line")
        if name.lower() == "content-disposition":
            disposition.append(value.strip())
        encoded = encoded or (
            name.lower() == "content-transfer-encoding" and value.strip().lower() not in _PLAIN_ENCODINGS
        )
    if len(disposition) != 1:
        _refuse("a part needs exactly one content-disposition")
    names, is_file = _parameters(disposition[0])
    if len(names) != 1 or not names[0]:
        _refuse("a part needs exactly one name")
    return names[0], is_file, encoded


def _parameters(disposition: str) -> tuple[list[str], bool]:
    kind = re.match(r"form-data(?=\s*;)", disposition, re.IGNORECASE)
    at = kind.end() if kind else 0
    names: list[str] = []
    is_file = False
    while match := _PARAMETER.match(disposition, at):
        at = match.end()
        parameter = match.group(1).lower()
        if parameter == "name":
            names.append(match.group(2) if match.group(3) is None else match.group(3))
        elif parameter == "name*":
            _refuse("a part's name is given in an encoded form")
        elif parameter in ("filename", "filename*"):
            is_file = True
    if not kind or disposition[at:].strip():
        _refuse('a part\'s content-disposition is not `form-data; name="…"`')
    return names, is_file


def _stored_name(name: str) -> bool:
    return name.partition("[")[0].casefold() in _STORED


def _truth(text: str) -> bool:
    said = _TRUTH.get(text.lower())
    if said is None:
        raise InvalidRequest("`stream` must be true or false", param="stream")
    return said


def _refuse(what: str) -> NoReturn:
    raise InvalidRequest(f"the form can be read in more than one way: {what}")
