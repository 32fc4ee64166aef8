"""A log line is one line, readable by machines or by people, and carries nothing that must not be in a log."""

import asyncio
import json
import logging
import os
import pty
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.record import Attempt, Ending, Kind, Personal, Record, Usage
from gateway.telemetry.lines import MAX_LINE_BYTES, LineSink
from gateway.telemetry.logs import (
    Clock,
    Format,
    JsonFormatter,
    Mode,
    RequestLog,
    TextFormatter,
    as_text,
    clean,
    setup_logging,
)

AT_US = 1_795_253_400_123_456  # 2026-11-21T09:30:00.123456Z


class Stderr:
    """A pipe in stderr's place, and the sink the code under test writes to."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        self.sink: LineSink | None = None

    def setup(self, level: str = "info", form: Format = "json") -> LineSink:
        self.sink = setup_logging(level, form, "worker 0", self.writer)
        return self.sink

    def text(self) -> str:
        return os.read(self.reader, 1 << 16).decode()

    def line(self) -> dict[str, Any]:
        (line,) = self.text().splitlines()
        loaded: dict[str, Any] = json.loads(line)
        return loaded


@pytest.fixture
def stderr() -> Iterator[Stderr]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    pipe = Stderr()
    yield pipe
    if pipe.sink is not None:
        pipe.sink.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    os.close(pipe.reader)
    os.close(pipe.writer)


def outcome(**fields: Any) -> Record:
    values: dict[str, Any] = {
        "surface": "chat",
        "model": "gpt-4o",
        "target": "a/large",
        "key_id": "demo",
        "status": 200,
        "ending": Ending.COMPLETE.value,
        "duration_us": 30_000,
        "overhead_us": 120,
    }
    return Record(Kind.OUTCOME, "req-1", AT_US, **values | fields)


# --- lines of the code ---


def test_a_log_call_becomes_one_json_object(stderr: Stderr) -> None:
    stderr.setup()
    logging.getLogger("gateway.control").warning("kept %s", "generation 3", extra={"fields": {"problems": 2}})
    line = stderr.line()
    assert line.pop("ts").endswith("Z")
    assert line == {
        "level": "warning",
        "event": "log",
        "process": "worker 0",
        "logger": "gateway.control",
        "message": "kept generation 3",
        "problems": 2,
    }


def test_the_level_holds_for_every_logger(stderr: Stderr) -> None:
    stderr.setup("warning")
    logging.getLogger("anything").info("quiet")
    logging.getLogger("anything").error("loud")
    assert stderr.line()["message"] == "loud"


def test_a_traceback_is_a_field_and_its_end_is_kept(stderr: Stderr) -> None:
    stderr.setup()

    def deep(left: int) -> None:
        if left:
            deep(left - 1)
        message = "the reason " + "x" * 50
        raise ValueError(message)

    try:
        deep(100)
    except ValueError:
        logging.getLogger("gateway").exception("failed\nbadly")
    line = stderr.line()
    assert line["message"] == "failed\nbadly"
    assert line["exc"].endswith("x" * 50)
    assert len(json.dumps(line)) < MAX_LINE_BYTES


def test_what_looks_like_a_credential_is_masked(stderr: Stderr) -> None:
    stderr.setup()
    secret = "sk-proj-abcdefghijklmnop"
    try:
        int(secret)
    except ValueError:
        logging.getLogger("x").exception("Authorization: Bearer abcdefghijklmnop", extra={"fields": {"key": secret}})
    text = stderr.text()
    assert "abcdefghijklmnop" not in text
    assert "Bearer ***" in text


def test_a_line_too_long_is_cut_and_still_json(stderr: Stderr) -> None:
    stderr.setup()
    logging.getLogger("x").error("\0" * 5_000, extra={"fields": {"more": ["\0" * 500] * 50}})
    line = stderr.text()
    assert len(line) <= MAX_LINE_BYTES
    assert line.count("\n") == 1


def test_a_careless_log_call_is_counted_and_not_raised(stderr: Stderr) -> None:
    sink = stderr.setup()
    logging.getLogger("x").error("%d", "not a number")
    assert sink.dropped == 1


def test_what_is_queued_leaves_when_logging_shuts_down(stderr: Stderr) -> None:
    sink = stderr.setup()
    loop = asyncio.new_event_loop()
    sink.attach(loop)
    RequestLog("all", sink, text=False).write(outcome())
    with pytest.raises(BlockingIOError):
        stderr.text()
    logging.getLogger().handlers[0].flush()
    assert stderr.line()["id"] == "req-1"
    loop.close()


def test_dropped_lines_are_told_in_the_same_form(stderr: Stderr) -> None:
    sink = stderr.setup()
    sink.dropped += 3
    sink.flush()
    line = stderr.line()
    assert (line["level"], line["message"]) == ("warning", "3 log lines were dropped: stderr was not read")


def test_text_is_for_people_and_safe_for_their_terminal(stderr: Stderr) -> None:
    stderr.setup(form="text")
    logging.getLogger("x").warning("bell \a and \x1b[31m red", extra={"fields": {"n": 1}})
    text = stderr.text()
    assert text[12:] == " WARNING worker 0: bell � and �[31m red n=1\n"


def test_text_shows_a_traceback_below() -> None:
    error = KeyError("x")
    record = logging.LogRecord("x", logging.ERROR, "", 0, "failed", (), (KeyError, error, None))
    first, *rest = TextFormatter("control").format(record).splitlines()
    assert first.endswith("ERROR   control: failed")
    assert rest[-1] == "KeyError: 'x'"


def test_exc_info_without_an_exception_is_empty() -> None:
    record = logging.LogRecord("x", logging.ERROR, "", 0, "failed", (), None)
    record.exc_info = True  # type: ignore[assignment]
    assert json.loads(JsonFormatter("control").format(record))["exc"] == ""


def test_auto_is_text_on_a_terminal_and_json_elsewhere(stderr: Stderr) -> None:
    leader, follower = pty.openpty()
    assert as_text("auto", follower)
    assert not as_text("auto", stderr.writer)
    assert not as_text("json", follower)
    os.close(leader)
    os.close(follower)


def test_clean_cuts_and_keeps_what_is_no_credential() -> None:
    assert clean("task sk-1 done", 100) == "task sk-1 done"
    assert clean("a" * 20, 5) == "aaaaa…"
    assert clean("\udc80", 100) == "\\udc80"


def test_clock_is_rfc_3339_in_utc() -> None:
    clock = Clock()
    assert clock.stamp(AT_US) == clock.stamp(AT_US + 1) == "2026-11-21T09:30:00.123Z"
    assert clock.stamp(AT_US + 1_000) == "2026-11-21T09:30:00.124Z"
    assert clock.stamp(0) == "1970-01-01T00:00:00.000Z"


# --- lines of requests ---


def test_a_request_s_line_has_what_is_known_and_leaves_out_what_is_not(stderr: Stderr) -> None:
    sink = stderr.setup()
    RequestLog("all", sink, text=False).write(
        outcome(usage=Usage(input_tokens=7, output_tokens=9), attempts=(Attempt("a/large", "ok"),), org="acme")
    )
    assert stderr.line() == {
        "ts": "2026-11-21T09:30:00.123Z",
        "level": "info",
        "event": "request",
        "id": "req-1",
        "status": 200,
        "ending": "complete",
        "org": "acme",
        "key_id": "demo",
        "surface": "chat",
        "model": "gpt-4o",
        "target": "a/large",
        "input_tokens": 7,
        "output_tokens": 9,
        "duration_us": 30_000,
        "overhead_us": 120,
    }


@pytest.mark.parametrize(("hold_id", "verdict", "told"), [("", "key.rpm", "key.rpm"), ("req-1", "table", None)])
def test_the_limit_that_refused_is_named_and_where_others_are_counted_is_not(
    stderr: Stderr, hold_id: str, verdict: str, told: str | None
) -> None:
    sink, code = stderr.setup(), "rate_limit_exceeded" if told else "upstream_reset"
    record = outcome(ending=Ending.REFUSED.value, status=429, error=code, limits_verdict=verdict, hold_id=hold_id)
    RequestLog("all", sink, text=False).write(record)
    assert stderr.line().get("limits_verdict") == told
    RequestLog("all", sink, text=True).write(record)
    assert stderr.text().endswith(f" {code} by key.rpm req-1\n" if told else f" {code} req-1\n")


def test_several_attempts_are_shown(stderr: Stderr) -> None:
    sink = stderr.setup()
    tried = (Attempt("a/large", "upstream_reset", took_ms=3), Attempt("b/large", "ok", 200, 20))
    RequestLog("all", sink, text=False).write(outcome(attempts=tried))
    assert stderr.line()["attempts"] == [
        {"target": "a/large", "cause": "upstream_reset", "took_ms": 3},
        {"target": "b/large", "cause": "ok", "status": 200, "took_ms": 20},
    ]


@pytest.mark.parametrize("form", ["json", "text"])
def test_nothing_personal_enters_a_line(stderr: Stderr, form: Format) -> None:
    sink = stderr.setup()
    personal = Personal(user="ann", end_user="bob", client_ip="192.0.2.7", user_agent="curl")
    RequestLog("all", sink, text=form == "text").write(outcome(personal=personal))
    text = stderr.text()
    assert not [word for word in ("ann", "bob", "192.0.2.7", "curl") if word in text]


@pytest.mark.parametrize(
    ("mode", "status", "ending", "lines"),
    [
        ("all", 200, Ending.COMPLETE, 1),
        ("errors", 200, Ending.COMPLETE, 0),
        ("errors", 404, Ending.COMPLETE, 1),
        ("errors", 200, Ending.TRUNCATED, 1),
        ("none", 500, Ending.FAILED, 0),
    ],
)
def test_the_mode_says_which_exchanges_have_a_line(
    stderr: Stderr, mode: Mode, status: int, ending: Ending, lines: int
) -> None:
    sink = stderr.setup()
    RequestLog(mode, sink, text=False).write(outcome(status=status, ending=ending.value))
    os.write(stderr.writer, b"end\n")
    assert stderr.text().count("\n") == lines + 1


@pytest.mark.parametrize(
    ("status", "ending", "level"),
    [
        (200, Ending.COMPLETE, "info"),
        (401, Ending.REFUSED, "info"),
        (502, Ending.FAILED, "warning"),
        (200, Ending.TRUNCATED, "warning"),
    ],
)
def test_the_level_says_whose_fault(stderr: Stderr, status: int, ending: Ending, level: str) -> None:
    sink = stderr.setup()
    RequestLog("all", sink, text=False).write(outcome(status=status, ending=ending.value))
    assert stderr.line()["level"] == level


@pytest.mark.parametrize("model", ["m" * 100_000, "\udc80 alone", "\udc80" * 50_000, "two\nlines", '"},{"'])
def test_a_model_name_cannot_break_a_line(stderr: Stderr, model: str) -> None:
    sink = stderr.setup()
    RequestLog("all", sink, text=False).write(
        outcome(model=model, target=model, attempts=(Attempt(model[:1], "ok"),) * 200)
    )
    text = stderr.text()
    assert len(text) <= MAX_LINE_BYTES
    assert text.count("\n") == 1
    assert json.loads(text)["id"] == "req-1"


def test_text_of_a_request(stderr: Stderr) -> None:
    sink = stderr.setup()
    log = RequestLog("all", sink, text=True)
    log.write(outcome(usage=Usage(input_tokens=7, output_tokens=9)))
    log.write(
        outcome(
            status=0,
            ending="failed",
            error="upstream_reset",
            attempts=(Attempt("a/large", "x"),) * 2,
            model="\x1b[2J\n",
            key_id="",
        )
    )
    assert stderr.text().splitlines() == [
        "09:30:00.123 200 chat demo gpt-4o -> a/large 30.0 ms (gw 0.12) 7+9 tokens req-1",
        "09:30:00.123 --- failed chat �[2J� -> a/large 2 attempts 30.0 ms (gw 0.12) upstream_reset req-1",
    ]
