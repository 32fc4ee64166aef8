"""Log lines: one JSON object a line, or one readable line on a terminal, through a sink that never waits.

Models two kinds of line. The rest of the code logs through the standard `logging`; `setup_logging` gives the root
logger our handler, and those lines leave at once. A request's line is made from its Record and leaves in batches
(1.5 us a line): `RequestLog`.

Invariants: no body, no credential and nothing of `Personal` enters a line: that part of a record can be erased, a
log cannot. What looks like a credential in a message or a traceback is masked, in case a library put it there. A
line fits MAX_LINE_BYTES; what a caller chose (a model name) cannot break a line or speak to a terminal.

Fields: ts (RFC 3339, UTC), level, event; then for code: logger, message, exc and what the call passed as
`extra={"fields": {...}}`; for requests: the fields of `RequestLine` that are not empty.
"""

import logging
import os
import re
import traceback
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

from gateway.record import Attempt, Ending, Record
from gateway.telemetry.lines import MAX_LINE_BYTES, LineSink
from gateway.units import US_PER_S

Format = Literal["json", "text", "auto"]
Mode = Literal["all", "errors", "none"]

MAX_TRACEBACK: Final = 2_400  # characters; the end is kept, where the error is
MAX_TEXT: Final = 1_000  # characters of any other value
MAX_NAME: Final = 100  # characters of a model's or target's name, where it has to be cut
_US_PER_MS: Final = 1_000
_MS_PER_S: Final = 1_000
_COMPLETE: Final = Ending.COMPLETE.value  # an enum's value costs 0.2 us to look up
_TRUNCATED: Final = Ending.TRUNCATED.value
_ERROR_STATUS: Final = 400
_FAULT_STATUS: Final = 500
_CREDENTIAL: Final = re.compile(r"(?i)\b(bearer\s+|basic\s+|gw-|sk-)[A-Za-z0-9_\-.~+/=]{8,}")
_encode: Final = msgspec.json.Encoder(enc_hook=str).encode


class Clock:
    """RFC 3339 from microseconds, made once a millisecond: under load many lines share it."""

    def __init__(self) -> None:
        self._ms = -1
        self._stamp = ""

    def stamp(self, at_us: int) -> str:
        """`2026-11-21T09:30:00.123Z`."""
        ms = at_us // _US_PER_MS
        if ms != self._ms:
            self._ms = ms
            second, rest = divmod(ms, _MS_PER_S)
            self._stamp = datetime.fromtimestamp(second, UTC).strftime(f"%Y-%m-%dT%H:%M:%S.{rest:03d}Z")
        return self._stamp


# --- lines of the code ----------------------------------------------------------------------------------------------


class JsonFormatter(logging.Formatter):
    """A LogRecord as one JSON object; `process` says which process of the node speaks."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process
        self._clock = Clock()

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline."""
        line: dict[str, Any] = {
            "ts": self._clock.stamp(int(record.created * US_PER_S)),
            "level": record.levelname.lower(),
            "event": "log",
            "process": self._process,
            "logger": record.name,
            "message": clean(record.getMessage(), MAX_TEXT),
        }
        for name, value in _fields(record).items():
            line[name] = clean(value, MAX_TEXT) if isinstance(value, str) else value
        if record.exc_info:
            line["exc"] = _exception(record)
        encoded = _encode(line)
        if len(encoded) >= MAX_LINE_BYTES:
            line = {name: line[name] for name in ("ts", "level", "event", "process", "logger", "message")}
            line["cut"] = True
            encoded = _encode(line)
        return encoded.decode()


class TextFormatter(logging.Formatter):
    """A LogRecord as a line for people: time, level, where, message, fields; a traceback below."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process
        self._clock = Clock()

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline."""
        time = self._clock.stamp(int(record.created * US_PER_S))[11:23]
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        text = printable(clean(record.getMessage() + fields, MAX_TEXT))
        line = f"{time} {record.levelname:<7} {self._process}: {text}"
        return f"{line}\n{_exception(record)}" if record.exc_info else line


class SinkHandler(logging.Handler):
    """Hands formatted lines to a sink; a line that cannot be made is counted as dropped, never raised."""

    def __init__(self, sink: LineSink) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line now."""
        try:
            line = self.format(record).encode(errors="backslashreplace")
        except Exception:  # noqa: BLE001 - a careless log call must not fail what it talks about
            self._sink.dropped += 1
            return
        self._sink.emit(line[: MAX_LINE_BYTES - 1] + b"\n")

    def flush(self) -> None:
        """Write what is queued, lines of requests too; `logging.shutdown` calls it when a process ends."""
        self._sink.flush()


def setup_logging(level: str, form: Format, process: str, fd: int = 2) -> LineSink:
    """Send everything logged in this process to `fd`; call it again in each process after a fork.

    `process` names the speaker ("worker 0", "control"). The sink is the process's own: attach it to the loop, hand
    it to `RequestLog`, close it last.
    """
    text = as_text(form, fd)
    sink = LineSink(fd, _notice(process, text=text))
    handler = SinkHandler(sink)
    handler.setFormatter(TextFormatter(process) if text else JsonFormatter(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    return sink


def as_text(form: Format, fd: int = 2) -> bool:
    """Whether lines are for people: as configured, or, on `auto`, when `fd` is a terminal."""
    return form == "text" or (form == "auto" and os.isatty(fd))


def clean(text: str, limit: int) -> str:
    """The text with what looks like a credential masked, encodable, and no longer than `limit` characters."""
    text = _CREDENTIAL.sub(r"\1***", text.encode(errors="backslashreplace").decode())
    return text if len(text) <= limit else text[:limit] + "…"


def printable(text: str) -> str:
    """The text on one line, with nothing in it that a terminal would act upon."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = getattr(record, "fields", None)
    return fields if isinstance(fields, dict) else {}


def _exception(record: logging.LogRecord) -> str:
    if not isinstance(record.exc_info, tuple):
        return ""
    text = clean("".join(traceback.format_exception(*record.exc_info)).rstrip(), 10**6)
    return text if len(text) <= MAX_TRACEBACK else "…" + text[-MAX_TRACEBACK:]


def _notice(process: str, *, text: bool) -> "_Notice":
    return _Notice(TextFormatter(process) if text else JsonFormatter(process))


class _Notice:
    """Makes the line that tells of dropped lines."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self._formatter = formatter

    def __call__(self, lines: int) -> bytes:
        record = logging.LogRecord(
            __name__, logging.WARNING, __file__, 0, "%d log lines were dropped: stderr was not read", (lines,), None
        )
        return self._formatter.format(record).encode() + b"\n"


# --- lines of requests ----------------------------------------------------------------------------------------------


class RequestLine(msgspec.Struct, omit_defaults=True, gc=False):
    """A request's line in JSON; empty fields are left out, and so are `attempts` when there was one.

    `limits_verdict` is the limit that refused it, and left out where none did.
    `level` is warning when the gateway or a provider is at fault; what a caller did wrong is information.
    """

    ts: str
    level: str
    event: str
    id: str
    status: int
    ending: str
    trace_id: str = ""
    org: str = ""
    team: str = ""
    key_id: str = ""
    surface: str = ""
    route: str = ""
    model: str = ""
    target: str = ""
    streamed: bool = False
    error: str = ""
    limits_verdict: str = ""
    attempts: tuple[Attempt, ...] = ()
    input_tokens: int = 0
    output_tokens: int = 0
    duration_us: int = 0
    overhead_us: int = 0
    first_content_us: int = -1
    request_bytes: int = 0
    answer_bytes: int = 0
    changed: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


class RequestLog:
    """Writes one line for each exchange that ended, or for those that ended badly."""

    def __init__(self, mode: Mode, sink: LineSink, *, text: bool) -> None:
        self._mode = mode
        self._sink = sink
        self._line = self._text if text else self._json
        self._clock = Clock()

    def write(self, record: Record) -> None:
        """Queue the record's line, if the mode wants one. Never waits, never raises over a record."""
        mode = self._mode
        if mode == "all" or (mode == "errors" and _went_badly(record)):
            self._sink.append(self._line(record))

    def _json(self, record: Record) -> bytes:
        line = self._request_line(record)
        try:
            encoded = _encode(line)
        except UnicodeEncodeError:  # a lone surrogate, in what the caller calls a model
            encoded = _encode(_shortened(line))
        if len(encoded) >= MAX_LINE_BYTES:
            encoded = _encode(_shortened(line))
        return encoded + b"\n"

    def _request_line(self, record: Record) -> RequestLine:
        usage = record.usage
        tokens_in = tokens_out = 0
        if usage is not None:
            tokens_in, tokens_out = usage.input_tokens, usage.output_tokens
        return RequestLine(
            self._clock.stamp(record.at_us),
            "warning" if record.status >= _FAULT_STATUS or record.ending == _TRUNCATED else "info",
            "request",
            record.exchange_id,
            record.status,
            record.ending,
            record.trace_id,
            record.org,
            record.team,
            record.key_id,
            record.surface,
            record.route,
            record.model,
            record.target,
            record.streamed,
            record.error,
            "" if record.hold_id else record.limits_verdict,
            record.attempts if len(record.attempts) > 1 else (),
            tokens_in,
            tokens_out,
            record.duration_us,
            record.overhead_us,
            record.first_content_us,
            record.request_bytes,
            record.answer_bytes,
            record.changed,
            record.dropped,
        )

    def _text(self, record: Record) -> bytes:
        time = self._clock.stamp(record.at_us)[11:23]
        status = record.status or "---"
        who = f" {record.key_id}" if record.key_id else ""
        what = clean(record.model, MAX_NAME) or "-"
        target = f" -> {clean(record.target, MAX_NAME)}" if record.target else ""
        tokens = f" {record.usage.input_tokens}+{record.usage.output_tokens} tokens" if record.usage else ""
        error = f" {record.error}" if record.error else ""
        limit = f" by {record.limits_verdict}" if record.limits_verdict and not record.hold_id else ""
        attempts = f" {len(record.attempts)} attempts" if len(record.attempts) > 1 else ""
        took = f"{record.duration_us / _US_PER_MS:.1f} ms (gw {record.overhead_us / _US_PER_MS:.2f})"
        how = "" if record.ending == _COMPLETE else f" {record.ending}"
        text = f"{time} {status}{how} {record.surface}{who} {what}{target}{attempts} {took}{tokens}{error}{limit}"
        return f"{printable(text)} {record.exchange_id}\n".encode(errors="backslashreplace")


def _shortened(line: RequestLine) -> RequestLine:
    """The line without what a caller's choice of model can make long or unspeakable."""
    line.model = clean(line.model, MAX_NAME)
    line.target = clean(line.target, MAX_NAME)
    line.attempts, line.changed, line.dropped = (), (), ()
    return line


def _went_badly(record: Record) -> bool:
    return record.status >= _ERROR_STATUS or record.ending != _COMPLETE
