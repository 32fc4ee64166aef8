"""What is known about a request folds into one record, however far the request came."""

import hashlib

import pytest

from gateway.config.schema import Config
from gateway.dialects.base import RequestFacts
from gateway.errors import InvalidRequest
from gateway.exchange import Exchange
from gateway.identity.identify import Principal
from gateway.journal.scribe import Sealed
from gateway.listener.head import Head
from gateway.record import Attempt, Ending, Kind, Outcome, Personal, Record, Usage
from gateway.routing.match import Router
from tests.fakes.journal import FakeKey
from tests.fakes.provider import surface

MS = 1_000_000


NOTHING = Record(Kind.OUTCOME, "", 0)


def exchange() -> Exchange:
    head = Head("POST", version_11=True)
    head.surface = surface("chat.completions")
    head.user_agent = "sdk/1"
    return Exchange("req_1", head, "1.2.3.4", keep_alive=True)


def test_a_request_that_came_nowhere() -> None:
    ex = exchange()
    ex.head.surface = None
    ex.error = InvalidRequest("no")
    ex.answered_status = 400
    record = ex.fold(1_700_000_000_000_000, ex.started_ns + 2 * MS, 3)
    assert (record.kind, record.exchange_id, record.at_us) == (Kind.OUTCOME, "req_1", 1_700_000_000_000_000)
    assert (record.ending, record.error, record.status) == ("refused", "invalid_request", 400)
    assert (record.surface, record.route, record.model, record.target, record.key_id) == ("", "", "", "", "")
    assert (record.duration_us, record.overhead_us, record.first_content_us) == (2000, 2000, -1)
    assert (record.decision, record.generation, record.answer_digest) == ("refuse", 3, "")
    assert (record.personal, record.sealed, record.sealed_by) == (None, "", "")
    assert ex.personal() == Personal("", "", "1.2.3.4", "sdk/1")


def test_a_request_that_came_to_its_end() -> None:
    ex = exchange()
    ex.principal = Principal("demo", "acme", "search", "ann", "analyst")
    ex.facts = RequestFacts("gpt", end_user="u1")
    ex.model = "gpt*"
    ex.route, ex.data_class = Router(Config()).match("/", "", {}), "internal"
    ex.trace_id, ex.span_id = "t", "s"
    ex.answered_status = 200
    attempts = (Attempt("a/m", "upstream_status", 503, 3), Attempt("b/m", "ok", 200, 5))
    usage = Usage(input_tokens=1, output_tokens=2)
    ex.outcome = Outcome(
        Ending.COMPLETE, 200, attempts, usage, streamed=True, upstream_bytes=10, downstream_bytes=20,
        first_content_us=400, upstream_us=700, changed=("model",),
    )  # fmt: skip
    ex.sealed, ex.decision = Sealed(FakeKey("k"), "text"), "allow"
    ex.answer = ex.sealed.key.hasher()
    record = ex.fold(5, ex.started_ns + MS, 1)
    assert (record.org, record.team, record.key_id, record.role) == ("acme", "search", "demo", "analyst")
    assert record.data_class == "internal"
    assert ex.personal() == Personal("ann", "u1", "1.2.3.4", "sdk/1")
    assert (record.personal, record.sealed, record.sealed_by) == (None, "text", "k")
    assert (record.decision, record.answer_digest) == ("allow", hashlib.sha256(b"k").hexdigest())
    assert (record.surface, record.route) == ("chat.completions", "default")
    assert (record.model, record.target) == ("gpt", "b/m"), "the caller's word, and who answered"
    assert record.entry == "gpt*", "and what the config says of such a word"
    ex.model = "gpt"
    assert ex.fold(5, ex.started_ns, 1).entry == ""
    assert (record.attempts, record.usage, record.changed) == (attempts, usage, ("model",))
    assert (record.request_bytes, record.answer_bytes, record.streamed) == (10, 20, True)
    assert (record.duration_us, record.overhead_us, record.first_content_us) == (1000, 300, 400)
    assert (record.trace_id, record.span_id) == ("t", "s")
    assert (record.ending, record.error) == ("complete", "")
    written = {name for name in record.__struct_fields__ if getattr(record, name) != getattr(NOTHING, name)}
    assert written == {
        "exchange_id", "at_us", "trace_id", "span_id", "org", "team", "key_id", "role", "sealed", "sealed_by",
        "surface", "route", "model", "target", "streamed", "decision", "data_class", "status", "ending", "attempts",
        "usage", "changed", "duration_us", "overhead_us", "first_content_us", "request_bytes", "answer_bytes",
        "answer_digest", "generation", "entry",
    }, "in the order of its fields, so none may be shifted"  # fmt: skip


def test_what_the_relay_says_went_wrong_comes_before_what_the_caller_was_told() -> None:
    ex = exchange()
    ex.error = InvalidRequest("no")
    ex.outcome = Outcome(Ending.TRUNCATED, 200, error="upstream_truncated")
    assert ex.fold(0, ex.started_ns, 1).error == "upstream_truncated"


def test_our_own_time_is_never_negative() -> None:
    ex = exchange()
    ex.outcome = Outcome(Ending.COMPLETE, 200, upstream_us=5000)
    assert ex.fold(0, ex.started_ns + MS, 1).overhead_us == 0


def test_exchanges_share_nothing() -> None:
    first, second = exchange(), exchange()
    first.model = "x"
    first.answered_status = 500
    assert (second.model, second.answered_status, second.transfer) == ("unknown", 0, None)


def test_once_recorded_it_lets_go_of_what_only_serving_needed() -> None:
    ex = exchange()
    with pytest.raises(InvalidRequest) as raised:
        _refuse()
    ex.error = error = raised.value
    held = ("__traceback__", "__cause__", "__context__")
    assert all(getattr(error, name) is not None for name in held)
    ex.release()
    assert all(getattr(error, name) is None for name in held)
    assert ex.transfer is None
    exchange().release()


def _refuse() -> None:
    try:
        int("x")
    except ValueError as inner:
        raise InvalidRequest("no") from inner
