"""The story of one request, stage by stage: what each ending says to the caller, to the provider, and to the record."""

import asyncio
import gzip
import hashlib
import random
import threading
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, cast
from unittest import mock

import msgspec
import orjson
import pytest

from gateway import spending
from gateway.config.limits import Limits, Rule, RuleMatch
from gateway.config.schema import Match, Model, Route, Target, Timeouts
from gateway.dialects.asked import Asked
from gateway.dialects.base import RequestFacts
from gateway.errors import GatewayError, InvalidCredential, MissingCredential, RateLimited, UpstreamConnectError
from gateway.exchange import Exchange
from gateway.ledger.prices import quoted
from gateway.limiter.engine import Amount, Reason, Unavailable
from gateway.limiter.limiter import Engines, Limiter
from gateway.limiter.rules import Rules, Subject
from gateway.listener.head import Head, read_head
from gateway.pipeline import RandomBytes, finish, identify, run
from gateway.record import Outcome, Record, Usage
from gateway.relay.stream import Admit, Transfer
from tests.fakes.limits import SliceEngine
from tests.fakes.patience import PATIENCE_S
from tests.fakes.provider import (
    DONE,
    END,
    ROLE,
    STOP,
    STREAMED,
    TEXT,
    USAGE,
    USED,
    WHOLE,
    FakeProvider,
    answer,
    body_of,
    chunk,
    stream,
    turns,
)
from tests.fakes.reply import FakeReply
from tests.fakes.transfer import run as play
from tests.fakes.wired import KEY, LIMITED, Wired

CHAT = b'{"model":"gpt","messages":[]}'
OK = answer(200, WHOLE)
PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Body:
    """A request body that is here."""

    def __init__(self, body: bytes = b"", encoding: bytes = b"", facts: RequestFacts | None = None) -> None:
        self.body = body
        self.length = len(body)
        self.encoding = encoding
        self.facts = facts
        self.upload = None


def asked(
    path: str = "/v1/chat/completions",
    body: bytes = CHAT,
    *,
    method: str = "POST",
    key: bytes = KEY,
    encoding: bytes = b"",
    headers: tuple[tuple[bytes, bytes], ...] = (),
    exchange_id: str = "req_1",
) -> Exchange:
    """An exchange as the listener hands it over."""
    head = Head(method, version_11=True)
    given = [(b"host", b"x"), (b"authorization", b"Bearer " + key), *headers]
    if method == "POST":
        given.append((b"content-type", b"application/json"))
    read_head(head, path.encode(), given)
    ex = Exchange(exchange_id, head, "1.2.3.4", keep_alive=True)
    ex.intake = Body(body, encoding)
    ex.reply = FakeReply()
    return ex


def reply_of(ex: Exchange) -> FakeReply:
    assert isinstance(ex.reply, FakeReply)
    return ex.reply


async def served(wired: Wired, ex: Exchange) -> Record:
    """From identity to record; the providers answer by themselves."""
    wired.gateway.wheel.start()
    identify(ex, wired.gateway)
    await asyncio.wait_for(run(ex, wired.gateway), PATIENCE_S)
    finish(ex, wired.gateway)
    await turns()
    wired.gateway.wheel.stop()
    assert reply_of(ex).faults == []
    assert all(provider.busy == 0 for provider in wired.providers)
    return wired.recorded[-1]


def refused(wired: Wired, ex: Exchange) -> GatewayError:
    """The error a request is answered with, and that nothing was sent to anyone for it."""
    record = play(served(wired, ex))
    error = reply_of(ex).error
    assert error is not None
    assert (record.ending, record.attempts, record.request_bytes) == ("refused", (), 0)
    assert all(provider.dials == 0 for provider in wired.providers)
    return error


def answering(*says: bytes, **options: Any) -> FakeProvider:
    provider = FakeProvider(**options)
    provider.always = says or (OK,)
    return provider


# --- from credential to record --------------------------------------------------------------------------------------


def test_a_request_from_credential_to_record() -> None:
    provider = answering()
    wired = Wired(provider)
    ex = asked(
        headers=((b"user-agent", b"sdk/1"), (b"traceparent", b"x")), body=b'{"model":"gpt","messages":[],"user":"u1"}'
    )
    ex.traceparent = PARENT
    record = play(served(wired, ex))
    assert reply_of(ex).body == WHOLE
    assert (record.org, record.team, record.key_id) == ("acme", "search", "demo")
    assert (record.sealed_by, record.sealed) == ("acme/ann/u1", "req_1|ann|u1|1.2.3.4|sdk/1")
    assert (record.surface, record.route, record.model) == ("chat.completions", "default", "gpt")
    assert (record.target, record.ending, record.usage) == ("fake/gpt-real", "complete", USED)
    assert record.changed == ("model",)
    assert record.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"
    request = provider.line.asked
    assert b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-" + record.span_id.encode() in request
    assert body_of(request) == b'{"model":"gpt-real","messages":[],"user":"u1"}'
    assert wired.records[-1][1:] == ("default", "gpt")


def test_a_stream_from_credential_to_record() -> None:
    wired = Wired(answering(stream(ROLE, TEXT, STOP, DONE), END))
    ex = asked(body=STREAMED)
    record = play(served(wired, ex))
    assert reply_of(ex).body == ROLE + TEXT + STOP + DONE
    assert (record.streamed, record.ending) == (True, "complete")
    assert record.first_content_us >= 0


def test_a_request_without_a_trace_begins_one() -> None:
    provider = answering()
    first, second = asked(), asked()
    wired = Wired(provider)
    records = [play(served(Wired(provider), first)), play(served(wired, second))]
    assert all(len(record.trace_id) == 32 for record in records)
    assert records[0].trace_id != records[1].trace_id
    assert records[1].trace_id.encode() in provider.line.asked


# --- the journal ----------------------------------------------------------------------------------------------------


def test_the_decision_stands_in_the_journal_before_the_first_upstream_byte() -> None:
    async def main() -> None:
        provider = answering()
        wired = Wired(provider)
        wired.desk.lines.answer = None
        wired.gateway.wheel.start()
        ex = asked()
        identify(ex, wired.gateway)
        task = asyncio.ensure_future(run(ex, wired.gateway))
        await turns()
        assert (provider.dials, reply_of(ex).heads) == (0, [])
        wired.desk.lines.waiting[0].set_result(True)
        await task
        finish(ex, wired.gateway)
        assert reply_of(ex).body == WHOLE
        wired.gateway.wheel.stop()

    play(main())


def test_an_exchange_leaves_a_decision_and_an_outcome() -> None:
    wired = Wired(answering())
    body = b'{"model":"gpt","messages":[],"user":"u1"}'
    record = play(served(wired, asked(body=body, headers=((b"user-agent", b"sdk/1"),))))
    decision, outcome = wired.desk.lines.told()
    key = b"acme/ann/u1"
    assert decision == {
        "kind": "decision",
        "exchange_id": "req_1",
        "at_us": decision["at_us"],
        "trace_id": record.trace_id,
        "span_id": record.span_id,
        "sealed": "req_1|ann|u1|1.2.3.4|sdk/1",
        "sealed_by": "acme/ann/u1",
        "request_bytes": len(body),
        "prompt_digest": hashlib.sha256(key + body).hexdigest(),
        "org": "acme",
        "team": "search",
        "key_id": "demo",
        "role": "analyst",
        "surface": "chat.completions",
        "route": "default",
        "model": "gpt",
        "decision": "allow",
        "data_class": "internal",
        "generation": 7,
    }
    assert outcome == orjson.loads(msgspec.json.encode(record))
    assert (outcome["kind"], outcome["sealed"], outcome["decision"]) == ("outcome", decision["sealed"], "allow")
    assert outcome["answer_digest"] == hashlib.sha256(key + WHOLE).hexdigest()
    assert wired.desk.lines.commits[0][1] is False


def test_the_answers_digest_is_of_what_the_caller_got() -> None:
    wired, ex = Wired(answering(stream(ROLE, TEXT, STOP, USAGE, DONE), END)), asked(body=STREAMED)
    play(served(wired, ex))
    got = reply_of(ex).body
    assert got.endswith(DONE)
    assert wired.desk.lines.told()[1]["answer_digest"] == hashlib.sha256(b"acme/ann/" + got).hexdigest()


def test_a_route_may_wait_for_the_disk() -> None:
    wired = Wired(answering(), routes=(Route(name="careful", durability="synced"),))
    play(served(wired, asked()))
    assert wired.desk.lines.commits[0][1] is True


def test_what_cannot_be_recorded_is_not_sent() -> None:
    wired = Wired(answering())
    wired.desk.lines.answer = False
    error = refused(wired, asked())
    assert (error.code, error.status, error.retry_after_s) == ("journal_unavailable", 503, 1)
    assert wired.desk.lines.gone_on == 0


def test_a_route_may_go_on_unrecorded() -> None:
    wired = Wired(answering(), routes=(Route(name="hasty", on_failure="open"),))
    wired.desk.lines.answer = False
    record = play(served(wired, asked()))
    assert (record.ending, record.decision, wired.desk.lines.gone_on) == ("complete", "allow", 1)


def test_a_refusal_of_a_known_caller_leaves_one_line() -> None:
    wired = Wired(answering())
    refused(wired, asked(body=b'{"model":"nope","messages":[]}'))
    (line,) = wired.desk.lines.told()
    assert (line["kind"], line["decision"], line["ending"]) == ("outcome", "refuse", "refused")
    assert line["sealed_by"] == "acme/ann/"


def test_the_digest_of_a_large_body_is_made_off_the_loop() -> None:
    large = CHAT[:-1] + b" " * 3000 + b"}"
    wired = Wired(answering(), inline_bytes=2000)
    play(served(wired, asked(body=large)))
    assert wired.desk.lines.told()[0]["prompt_digest"] == hashlib.sha256(b"acme/ann/" + large).hexdigest()


def test_without_a_key_nothing_personal_is_written() -> None:
    wired = Wired(answering())
    wired.desk.sealer.out = True
    play(served(wired, asked()))
    decision, outcome = wired.desk.lines.told()
    assert (decision["sealed"], decision["prompt_digest"]) == ("", "")
    assert not {"sealed", "sealed_by", "answer_digest", "personal"} & outcome.keys()


def test_a_gateway_may_keep_no_journal() -> None:
    wired = Wired(answering())
    wired.gateway.scribe = None
    record = play(served(wired, asked()))
    assert (record.ending, record.sealed, record.personal) == ("complete", "", None)
    assert wired.desk.lines.contents == []


def test_who_leaves_while_the_decision_is_written_has_sent_nothing_upstream() -> None:
    async def main() -> None:
        provider = answering()
        wired = Wired(provider)
        wired.desk.lines.answer = None
        wired.gateway.wheel.start()
        ex = asked()
        identify(ex, wired.gateway)
        task = asyncio.ensure_future(run(ex, wired.gateway))
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        finish(ex, wired.gateway)
        assert (provider.dials, wired.recorded[-1].ending, wired.recorded[-1].decision) == (0, "abandoned", "")
        wired.gateway.wheel.stop()

    play(main())


# --- identity -------------------------------------------------------------------------------------------------------


def test_who_is_calling_is_known_before_anything_else() -> None:
    wired, ex = Wired(), asked()
    identify(ex, wired.gateway)
    assert ex.principal.key_id == "demo"
    with pytest.raises(InvalidCredential):
        identify(asked(key=b"gw-nobody"), wired.gateway)
    with pytest.raises(MissingCredential):
        asked(key=b"")


# --- reading the body -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"messages":[]}', b'{"model":1,"messages":[]}', b"\xff"])
def test_a_body_that_cannot_be_read(body: bytes) -> None:
    assert refused(Wired(answering()), asked(body=body)).code == "invalid_request"


def test_a_body_that_has_killed_two_workers() -> None:
    wired = Wired(answering())
    wired.guard.refused.add(CHAT)
    assert refused(wired, asked()).code == "refused_body"


@pytest.mark.parametrize("body", [CHAT, b"{"])
def test_the_mark_on_a_body_is_taken_off_however_its_reading_ends(body: bytes) -> None:
    wired = Wired(answering())
    play(served(wired, asked(body=body)))
    assert (wired.guard.entered, wired.guard.reading) == (1, None)


@pytest.mark.parametrize("large", [CHAT[:-1] + b" " * 3000 + b"}", b"{" * 3000])
def test_a_large_body_is_read_off_the_loop(large: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    wired = Wired(answering(), inline_bytes=2000)
    ex = asked(body=large)
    dialect = ex.head.dialect
    on_loop: list[bool] = []

    class Noted:
        name = dialect.name

        def read_request(self, *given: Any) -> RequestFacts:
            try:
                asyncio.get_running_loop()
                on_loop.append(True)
            except RuntimeError:
                on_loop.append(False)
            return dialect.read_request(*given)

        def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - everything else is the dialect's
            return getattr(dialect, name)

    monkeypatch.setattr(ex.head, "dialect", Noted())
    play(served(wired, ex))
    assert on_loop == [False]


def test_a_large_body_that_has_killed_two_workers() -> None:
    large = CHAT[:-1] + b" " * 3000 + b"}"
    wired = Wired(answering(), inline_bytes=2000)
    wired.guard.refused.add(large)
    play(served(wired, asked(body=large)))
    assert wired.guard.entered == 0, "only what holds the loop up can be told to have killed its worker"


def test_an_encoded_body_is_decoded_first() -> None:
    provider = answering()
    play(served(Wired(provider), asked(body=gzip.compress(CHAT), encoding=b"gzip")))
    assert body_of(provider.line.asked) == CHAT.replace(b'"gpt"', b'"gpt-real"')
    assert b"content-length: %d\r\n" % len(body_of(provider.line.asked)) in provider.line.asked


@pytest.mark.parametrize(
    ("encoding", "body", "code"),
    [
        (b"br", CHAT, "unsupported_media_type"),
        (b"gzip", CHAT, "unsupported_media_type"),
        (b"gzip", gzip.compress(CHAT)[:-1], "unsupported_media_type"),
        (b"gzip", gzip.compress(CHAT + b" " * 5000), "body_too_large"),
        (b"gzip", gzip.compress(b"{"), "invalid_request"),
    ],
    ids=["unknown", "not-encoded", "cut", "too-large", "not-json"],
)
def test_an_encoded_body_that_cannot_be_decoded(encoding: bytes, body: bytes, code: str) -> None:
    wired = Wired(answering(), max_body_bytes=5000)
    assert refused(wired, asked(body=body, encoding=encoding)).code == code


def test_a_caller_who_leaves_while_its_body_is_read_has_abandoned_it() -> None:
    async def main() -> None:
        wired = Wired(answering(), inline_bytes=1)
        wired.gateway.wheel.start()
        ex = asked()
        identify(ex, wired.gateway)
        task = asyncio.ensure_future(run(ex, wired.gateway))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        finish(ex, wired.gateway)
        assert wired.recorded[-1].ending == "abandoned"
        wired.gateway.wheel.stop()

    play(main())


# --- choosing the model, the route, the targets ---------------------------------------------------------------------


def test_a_model_that_is_not_there() -> None:
    error = refused(Wired(answering()), asked(body=b'{"model":"nope","messages":[]}'))
    assert (error.code, error.param) == ("model_not_found", "model")
    assert "'nope'" in error.message


def test_a_model_that_the_key_may_not_use_is_refused_whether_or_not_it_is_there() -> None:
    for body in (b'{"model":"nope","messages":[]}', b'{"model":"other","messages":[]}'):
        assert refused(Wired(answering()), asked(body=body, key=LIMITED)).code == "model_not_allowed"


def test_a_long_model_name_is_not_repeated_whole() -> None:
    error = refused(Wired(answering()), asked(body=b'{"model":"' + b"x" * 250 + b'","messages":[]}'))
    assert len(error.message) < 200


def test_a_model_of_another_dialect() -> None:
    error = refused(Wired(answering(kind="anthropic")), asked())
    assert error.code == "invalid_request"
    assert "its API is anthropic" in error.message


def test_what_is_known_of_a_model_is_not_known_for_another_key() -> None:
    wired = Wired(answering(), models={"*": Model(targets=(Target(provider="fake", model="*"),))})
    play(served(wired, asked(body=b'{"model":"any","messages":[]}')))
    ex = asked(body=b'{"model":"any","messages":[]}', key=LIMITED)
    play(served(wired, ex))
    error = reply_of(ex).error
    assert error is not None
    assert error.code == "model_not_allowed"


@pytest.mark.parametrize("name", ["openai/a", "openai/b/c"])
def test_a_pattern_stands_for_what_the_caller_asked(name: str) -> None:
    provider = answering()
    wired = Wired(provider, models={"openai/*": Model(targets=(Target(provider="fake", model="*"),))})
    record = play(served(wired, asked(body=b'{"model":"%b","messages":[]}' % name.encode())))
    assert (record.model, record.target) == (name, f"fake/{name[7:]}")
    assert orjson.loads(body_of(provider.line.asked))["model"] == name[7:]
    assert wired.records[-1][2] == "openai/*", "the label is the config's word"


def test_the_first_route_that_matches_serves_with_its_terms() -> None:
    provider = FakeProvider()
    routes = (
        Route(name="labelled", match=Match(labels={"app": "ui"}), timeouts=Timeouts(first_byte_s=0.05)),
        Route(name="rest"),
    )
    wired = Wired(provider, routes=routes)
    record = play(served(wired, asked()))
    assert (record.route, record.error) == ("labelled", "upstream_timeout")
    provider.always = (OK,)
    assert play(served(Wired(provider, routes=routes), asked(key=LIMITED))).route == "rest"


def test_one_target_after_another_is_tried() -> None:
    bad, good = answering(answer(503, b"{}"), name="bad"), answering(name="good")
    record = play(served(Wired(bad, good), asked()))
    assert [(row.target, row.cause) for row in record.attempts] == [
        ("bad/gpt-real", "upstream_status"),
        ("good/gpt-real", "ok"),
    ]


def test_what_a_provider_stores_is_never_sent_twice() -> None:
    bad, good = answering(answer(503, b"{}"), name="bad"), answering(name="good")
    stores = asked("/v1/responses", b'{"model":"gpt","input":"x"}')
    assert len(play(served(Wired(bad, good), stores)).attempts) == 1
    kept = asked("/v1/responses", b'{"model":"gpt","input":"x","store":false}')
    assert len(play(served(Wired(bad, good), kept)).attempts) == 2


def test_stored_objects_are_named_at_a_dedicated_account_only() -> None:
    body = b'{"model":"gpt","input":"x","previous_response_id":"resp_1"}'
    error = refused(Wired(answering()), asked("/v1/responses", body))
    assert (error.code, error.param) == ("stored_object_not_allowed", "previous_response_id")
    shared, own = answering(name="shared"), answering(name="own", dedicated_to=frozenset({"acme"}))
    record = play(served(Wired(shared, own), asked("/v1/responses", body)))
    assert [row.target for row in record.attempts] == ["own/gpt-real"]
    assert shared.dials == 0
    foreign = answering(dedicated_to=frozenset({"other", ""}))
    assert refused(Wired(foreign), asked("/v1/responses", body)).code == "stored_object_not_allowed"


# --- passthrough ----------------------------------------------------------------------------------------------------


def test_a_raw_request_goes_to_its_provider_as_it_came() -> None:
    provider = answering(answer(200, b"\x00raw", b"application/x-own"))
    ex = asked("/passthrough/fake/v1/files?a=1", b"\xff\xfe", method="PUT", encoding=b"gzip")
    ex.intake.encoding = b""
    record = play(served(Wired(provider), ex))
    assert provider.line.asked.startswith(b"PUT /v1/files?a=1 HTTP/1.1\r\n")
    assert body_of(provider.line.asked) == b"\xff\xfe"
    assert (reply_of(ex).body, record.surface, record.model) == (b"\x00raw", "passthrough", "")


@pytest.mark.parametrize(
    ("path", "body", "method"),
    [("/v1/chat/completions", CHAT, "POST"), ("/passthrough/fake/x", b"", "POST"), ("/v1/models", b"", "GET")],
)
def test_a_route_s_class_of_data_takes_the_place_of_the_key_s(path: str, body: bytes, method: str) -> None:
    limits = Limits(rules=(Rule(name="r", per=("role", "data_class"), requests=9, every="minute"),))
    for routes, data_class in (((), "internal"), ((Route(name="files", data_class="secret"),), "secret")):
        wired = Wired(answering(), routes=routes, limits=limits)
        record = play(served(wired, asked(path, body, method=method)))
        assert (record.role, record.data_class) == ("analyst", data_class)
        assert {(told["role"], told["data_class"]) for told in wired.desk.lines.told()} == {("analyst", data_class)}
        if path != "/v1/models":
            assert list(record.settled_amounts) == [f"r|role=analyst|data_class={data_class}|rate=9000/60000"]


@pytest.mark.parametrize(
    ("path", "key", "code"),
    [("/passthrough/nobody/x", KEY, "not_found"), ("/passthrough/fake/x", LIMITED, "model_not_allowed")],
)
def test_raw_requests_that_are_refused(path: str, key: bytes, code: str) -> None:
    assert refused(Wired(answering()), asked(path, method="GET", key=key)).code == code


@pytest.mark.parametrize(("method", "dials"), [("GET", 2), ("HEAD", 2), ("POST", 1), ("DELETE", 1)])
def test_a_raw_request_is_sent_again_only_where_that_is_safe(method: str, dials: int) -> None:
    async def main() -> None:
        provider = FakeProvider()
        wired = Wired(provider)
        old = await provider.warm()
        task = asyncio.ensure_future(served(wired, asked("/passthrough/fake/x", b"", method=method)))
        await turns(5)
        old.resets()
        await turns()
        if provider.dials == 2:
            provider.line.says(b"HTTP/1.1 204 No Content\r\n\r\n")
        await task
        assert provider.dials == dials

    play(main())


# --- models ---------------------------------------------------------------------------------------------------------


def models(path: str, key: bytes = KEY, *headers: tuple[bytes, bytes]) -> FakeReply:
    plain = Model(targets=(Target(provider="fake", model="m"),))
    wired = Wired(answering(), models={"gpt": plain, "other": plain, "openai/*": plain})
    ex = asked(path, b"", method="GET", key=key, headers=headers)
    record = play(served(wired, ex))
    assert wired.providers[0].dials == 0
    assert record.ending == ("complete" if reply_of(ex).ending == "whole" else "refused")
    return reply_of(ex)


def test_models_are_the_names_that_the_key_may_use() -> None:
    assert [row["id"] for row in orjson.loads(models("/v1/models").body)["data"]] == ["gpt", "other"]
    assert [row["id"] for row in orjson.loads(models("/v1/models", LIMITED).body)["data"]] == ["gpt"]


def test_models_are_listed_in_the_callers_dialect() -> None:
    listed = orjson.loads(models("/v1/models", KEY, (b"anthropic-version", b"2023-06-01")).body)
    assert [row["type"] for row in listed["data"]] == ["model", "model"]
    assert "has_more" in listed


@pytest.mark.parametrize(("name", "known"), [("gpt", True), ("openai/new", True), ("nope", False)])
def test_one_model(name: str, *, known: bool) -> None:
    reply = models(f"/v1/models/{name}")
    if known:
        assert orjson.loads(reply.body)["id"] == name
    else:
        assert reply.error is not None
        assert reply.error.code == "model_not_found"


def test_one_model_that_the_key_may_not_use_is_not_there() -> None:
    error = models("/v1/models/other", LIMITED).error
    assert error is not None
    assert error.code == "model_not_found"


# --- defects, randomness --------------------------------------------------------------------------------------------


def test_a_request_that_no_surface_is_for_is_a_defect_that_is_said() -> None:
    ex = asked()
    ex.head.surface = None
    error = refused(Wired(), ex)
    assert error.code == "internal_error"


def test_plans_are_remembered_in_a_bounded_number() -> None:
    wired = Wired(answering(), models={"*": Model(targets=(Target(provider="fake", model="*"),))})

    async def main() -> None:
        for number in range(4200):
            ex = asked(body=b'{"model":"m%d","messages":[]}' % number)
            identify(ex, wired.gateway)
            await run(ex, wired.gateway)
            assert ex.model == "*"

    wired.providers[0].refusals = [UpstreamConnectError("no")] * 4200
    play(with_wheel(wired, main()))
    assert len(wired.gateway.plans) <= 4096


async def with_wheel(wired: Wired, work: Coroutine[Any, Any, None]) -> None:
    wired.gateway.wheel.start()
    await work
    wired.gateway.wheel.stop()


def test_random_bytes_are_never_given_twice() -> None:
    source = RandomBytes()
    given = [source.take(random.Random(n).choice([8, 24, 32])) for n in range(1000)]
    assert len(set(given)) == 1000
    assert all(len(taken) in (8, 24, 32) for taken in given)


# --- limits ---------------------------------------------------------------------------------------------------------


def limiting(*rules: Rule, unpriced: str = "zero", **settings: Any) -> dict[str, Any]:
    return {"limits": Limits(rules=rules, unpriced=cast("Any", unpriced), **settings)}


RPM = Rule(name="rpm", per=("key",), requests=2, every="minute")
TPM = Rule(name="tpm", per=("key",), tokens=10_000, every="minute")
SLOTS = Rule(name="slots", per=("key",), in_flight=1)
LEFT = "rpm|key=demo|rate=2000/60000"


def left(wired: Wired, rule: Rule, bucket: str) -> int:
    """What is left of a bucket."""
    limits = Rules(Limits(rules=(rule,)), name_key=b"").limits(Subject("demo"))
    assert limits is not None
    (line,) = limits.lines(wired.engine.now_ms).lines
    (standing,) = wired.engine.model.peek(wired.engine.now_ms, [Amount(bucket, line.spec, 0)])
    return standing.level


def test_a_request_takes_from_its_limits_and_settles_what_it_used() -> None:
    wired = Wired(answering(), **limiting(RPM, TPM, SLOTS))
    ex = asked()
    record = play(served(wired, ex))
    assert (record.limits_verdict, record.hold_id, record.hold_amounts) == ("table", "req_1", {})
    assert record.settled_amounts == {
        "rpm|key=demo|rate=2000/60000": 1_000,
        "tpm|key=demo|rate=10000000/60000": 5_000,
    }
    decision = wired.desk.lines.told()[0]
    assert (decision["kind"], decision["hold_id"]) == ("decision", "req_1")
    assert decision["hold_amounts"] == {
        "rpm|key=demo|rate=2000/60000": 1_000,
        "tpm|key=demo|rate=10000000/60000": 1_024_000,
    }
    assert (left(wired, RPM, "rpm|key=demo"), left(wired, SLOTS, "slots|key=demo")) == (1_000, 1)
    assert left(wired, TPM, "tpm|key=demo") == 9_995_000


@pytest.mark.parametrize("rules", [(RPM,), (RPM, TPM), ()])
def test_what_was_decoded_of_a_chat_is_let_go_of_before_it_is_sent(rules: tuple[Rule, ...]) -> None:
    wired = Wired(answering(), **limiting(*rules))
    ex = asked()
    play(served(wired, ex))
    assert ex.facts is not None
    assert ex.facts.names == {"model", "messages"}
    assert ex.facts.talk is None
    assert (ex.asked is not None) == (TPM in rules)


def test_a_key_that_nothing_limits_asks_nobody() -> None:
    wired = Wired(answering(), **limiting(said(RPM, match=RuleMatch(key="other"))))
    record = play(served(wired, asked()))
    assert (record.limits_verdict, record.hold_id, record.settled_amounts, wired.engine.calls) == ("", "", {}, [])


def test_a_refusal_is_told_with_its_limit_and_costs_nothing() -> None:
    wired = Wired(answering(), **limiting(said(RPM, requests=1), TPM))
    play(served(wired, asked(exchange_id="req_0")))
    before = left(wired, TPM, "tpm|key=demo")
    ex = asked()
    record = play(served(wired, ex))
    error = reply_of(ex).error
    assert isinstance(error, RateLimited)
    assert (record.ending, record.limits_verdict, record.hold_id, record.attempts) == ("refused", "rpm", "", ())
    assert (error.rule, error.retry_after_ms) == ("rpm", 60_000)
    assert b"x-ratelimit-remaining-requests: 0" in error.header_lines("openai")
    assert (left(wired, TPM, "tpm|key=demo"), wired.gateway.limiter.open) == (before, {})
    assert wired.providers[0].dials == 1


def test_a_prompt_that_never_fits_is_refused_for_good() -> None:
    wired = Wired(answering(), **limiting(said(TPM, tokens=10)))
    error = refused(wired, asked(body=b'{"model":"gpt","messages":[{"role":"user","content":"%b"}]}' % (b"a" * 100)))
    assert (error.status, error.code) == (400, "request_too_large_for_limit")
    assert wired.recorded[-1].limits_verdict == "tpm"


def test_a_limit_that_cannot_be_asked_is_told_as_what_refused() -> None:
    wired = Wired(answering(), **limiting(said(RPM, on_store_failure="open"), said(TPM, on_store_failure="closed")))
    wired.engine.failure = Unavailable(Reason.LATE)
    assert refused(wired, asked()).code == "limits_unavailable"
    assert wired.recorded[-1].limits_verdict == "tpm"


def test_what_the_journal_refuses_is_given_back() -> None:
    wired = Wired(answering(), **limiting(RPM, SLOTS))
    wired.desk.lines.answer = False
    error = refused(wired, asked())
    assert error.code == "journal_unavailable"
    assert (left(wired, RPM, "rpm|key=demo"), left(wired, SLOTS, "slots|key=demo")) == (2_000, 1)


def test_failover_charges_each_providers_own_limit_and_the_callers_once() -> None:
    at = Rule(name="at", per=("provider",), requests=5, every="minute")
    broken, sound = answering(answer(500, b"{}"), name="broken"), answering(name="sound")
    wired = Wired(broken, sound, **limiting(RPM, at))
    record = play(served(wired, asked()))
    assert [attempt.cause for attempt in record.attempts] == ["upstream_status", "ok"]
    assert record.settled_amounts == {
        "rpm|key=demo|rate=2000/60000": 1_000,
        "at|provider=sound|rate=5000/60000": 1_000,
        "at|provider=broken|rate=5000/60000": 1_000,
    }


def test_a_provider_whose_own_limit_is_used_up_is_passed_over() -> None:
    at = Rule(name="at", per=("provider",), requests=1, every="minute", match=RuleMatch(provider="first"))
    first, second = answering(name="first"), answering(name="second")
    wired = Wired(first, second, **limiting(at))
    targets = [play(served(wired, asked(exchange_id=f"req_{number}"))).target for number in range(2)]
    assert targets == ["first/gpt-real", "second/gpt-real"]


def test_an_attempt_after_a_failure_passes_over_it_too() -> None:
    at = Rule(name="at", per=("provider",), requests=1, every="minute", match=RuleMatch(provider="second"))
    names = ("first", "second", "third")
    says = (answer(500, b"{}"), OK, OK)
    wired = Wired(*(answering(say, name=name) for say, name in zip(says, names, strict=True)), **limiting(at))
    records = [play(served(wired, asked(exchange_id=f"req_{number}"))) for number in range(2)]
    order = [[attempt.target for attempt in record.attempts] for record in records]
    assert order == [["first/gpt-real", "second/gpt-real"], ["first/gpt-real", "third/gpt-real"]]


def test_money_is_counted_at_the_price_of_the_target() -> None:
    usd = Rule(name="usd", per=("key",), usd=1, every="month")
    provider = answering(price=quoted({"input": 100, "output": 1_000}))
    wired = Wired(provider, **limiting(usd))
    record = play(served(wired, asked(body=b'{"model":"gpt","messages":[],"max_tokens":9}')))
    assert record.cost_microusd == 3 * 100 + 2 * 1_000
    assert list(record.settled_amounts.values()) == [2_300]
    assert list(wired.desk.lines.told()[0]["hold_amounts"].values()) == [9_000]


def test_what_a_failed_attempt_has_used_is_paid_once_however_many_providers_refuse() -> None:
    """The first tells usage and no content, the second may not be asked, the third answers."""
    usd = Rule(name="usd", per=("key",), usd=1, every="month")
    at = Rule(name="at", per=("provider",), requests=1, every="minute", match=RuleMatch(provider="second"))
    price = quoted({"input": 100, "output": 1_000})
    says = (stream(ROLE, USAGE) + END, OK, OK)
    names = ("first", "second", "third")
    providers = [answering(say, name=name, price=price) for say, name in zip(says, names, strict=True)]
    wired = Wired(*providers, **limiting(usd, at))
    body = b'{"model":"gpt","stream":true,"messages":[],"max_tokens":9}'
    play(served(wired, asked(body=body, exchange_id="req_0")))
    record = play(served(wired, asked(body=body)))
    assert [attempt.target for attempt in record.attempts] == ["first/gpt-real", "third/gpt-real"]
    assert [attempt.cause for attempt in record.attempts] == ["upstream_empty", "ok"]
    assert record.cost_microusd == 2 * 2_300
    assert [amount for name, amount in record.settled_amounts.items() if name.startswith("usd")] == [2 * 2_300]


USED_UP = b'"usage":{"prompt_tokens":3,"completion_tokens":2}}'
REFUSES, REFUSES_USED = (answer(500, b'{"error":{"message":"no"}' + more) for more in (b"}", b"," + USED_UP))
HALF = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(b'{"choices":['),
    b"zz\r\n",
)
FAILURES: dict[str, tuple[list[tuple[bytes, ...] | UpstreamConnectError], int, int]] = {  # requests, cost
    "usage and no content": ([(stream(ROLE, USAGE) + END,)], 1, 2_300),
    "an error after usage": ([(stream(ROLE, USAGE, b'data: {"error":{"message":"no"}}\n\n'),)], 1, 2_300),
    "an error and nothing told": ([(REFUSES,)], 1, 0),
    "an error and usage told": ([(REFUSES_USED,)], 1, 2_300),
    "an error inside of a success": ([(answer(200, b'{"error":{"message":"no"},' + USED_UP),)], 1, 2_300),
    "a refusal of the caller's, and usage told": ([(answer(400, b'{"error":{},' + USED_UP),)], 1, 2_300),
    "half an answer": ([HALF], 1, 9_000),
    "not reached": ([UpstreamConnectError("no")], 0, 0),
    "told, and again": ([(stream(ROLE, USAGE) + END,), (REFUSES_USED,)], 1, 4_600),
    "told, then nothing": ([(stream(ROLE, USAGE) + END,), (REFUSES,)], 1, 2_300),
    "told, then not reached": ([(REFUSES_USED,), UpstreamConnectError("no")], 1, 2_300),
    "told, and then nobody may be asked": ([(REFUSES_USED,), (b"never asked",)], 1, 2_300),
}


@pytest.mark.parametrize(("says", "requests", "microusd"), FAILURES.values(), ids=FAILURES.keys())
def test_what_attempts_have_used_that_all_failed_is_owed_and_recorded(
    says: list[tuple[bytes, ...] | UpstreamConnectError], requests: int, microusd: int
) -> None:
    """Record and budget come to the same, so that a budget counted again from the journal is the one that was."""
    usd = Rule(name="usd", per=("key",), usd=1, every="month")
    refusing = Rule(name="at", match=RuleMatch(provider="second"), requests=1, capacity=1, every="month", budget=True)
    price = quoted({"input": 100, "output": 1_000})
    providers = [FakeProvider(name=name, price=price) for name, _ in zip(("first", "second"), says, strict=False)]
    for provider, say in zip(providers, says, strict=True):
        provider.refusals, provider.always = ([say], ()) if isinstance(say, UpstreamConnectError) else ([], say)
    closed = says[-1] == (b"never asked",)
    wired = Wired(*providers, **limiting(RPM, usd, *([said(refusing, requests=0)] if closed else [])))
    record = play(served(wired, asked(body=b'{"model":"gpt","messages":[],"max_tokens":9,"stream":true}')))
    settled = {name.partition("|")[0]: amount for name, amount in record.settled_amounts.items()}
    assert (settled["rpm"], settled["usd"]) == (requests * 1_000, microusd)
    assert 1_000_000 - left(wired, usd, "usd|key=demo") == microusd
    assert record.cost_microusd == (0 if says == [HALF] else microusd)  # what nobody told is no cost, but owed


def test_the_cost_of_attempts_that_failed_is_told_where_nothing_limits_it() -> None:
    price = quoted({"input": 100, "output": 1_000})
    told, sound = answering(REFUSES_USED, name="told", price=price), answering(name="sound", price=price)
    assert play(served(Wired(told, sound), asked())).cost_microusd == 2 * 2_300


def test_the_cost_is_told_where_nothing_limits_it() -> None:
    wired = Wired(answering(price=quoted({"input": 1, "output": 2})))
    assert play(served(wired, asked())).cost_microusd == 7


def test_no_more_is_reserved_than_the_config_says_the_context_holds() -> None:
    first, second = answering(context_tokens=500), answering(name="other", context_tokens=400)
    wired = Wired(first, second, **limiting(TPM))
    play(served(wired, asked(body=b'{"model":"gpt","messages":[],"max_tokens":90000}')))
    assert wired.desk.lines.told()[0]["hold_amounts"] == {"tpm|key=demo|rate=10000000/60000": 500_000}


@pytest.mark.parametrize(("unpriced", "served_"), [("zero", True), ("refuse", False)])
def test_a_model_without_a_price_is_free_or_refused_as_the_config_says(unpriced: str, served_: bool) -> None:
    usd = Rule(name="usd", per=("key",), usd=1, every="month")
    wired = Wired(answering(), **limiting(usd, unpriced=unpriced))
    if served_:
        assert play(served(wired, asked())).status == 0  # FakeReply answers nobody
    else:
        assert refused(wired, asked()).code == "model_not_priced"


def test_a_raw_request_is_limited_by_the_request_alone() -> None:
    wired = Wired(answering(name="fake"), **limiting(RPM, TPM))
    for number in range(2):
        ex = asked("/passthrough/fake/v1/files", b"", method="GET", exchange_id=f"req_{number}")
        record = play(served(wired, ex))
        assert record.settled_amounts == {
            "rpm|key=demo|rate=2000/60000": 1_000,
            "tpm|key=demo|rate=10000000/60000": 0,
        }
    ex = asked("/passthrough/fake/v1/files", b"", method="GET", exchange_id="req_3")
    play(served(wired, ex))
    assert isinstance(reply_of(ex).error, RateLimited)


@pytest.mark.parametrize(("unpriced", "served_"), [("zero", True), ("refuse", False)])
def test_a_raw_request_where_a_limit_counts_money_is_free_or_refused_as_the_config_says(
    unpriced: str, served_: bool
) -> None:
    usd = Rule(name="usd", per=("key",), usd=1, every="month")
    wired = Wired(answering(name="fake"), **limiting(usd, unpriced=unpriced))
    ex = asked("/passthrough/fake/v1/chat/completions")
    if served_:
        assert play(served(wired, ex)).settled_amounts.popitem()[1] == 0
    else:
        error = refused(wired, ex)
        assert error.code == "model_not_priced"
        assert "a passthrough request costs is not known, and the limit usd counts money" in error.message


async def left_midway(wired: Wired) -> Record:
    """A stream whose caller goes while it runs."""
    wired.gateway.wheel.start()
    ex = asked(body=b'{"model":"gpt","stream":true,"messages":[]}')
    identify(ex, wired.gateway)
    work = asyncio.create_task(run(ex, wired.gateway))
    await turns(40)
    work.cancel()
    with suppress(asyncio.CancelledError):
        await work
    finish(ex, wired.gateway)
    wired.gateway.wheel.stop()
    return wired.recorded[-1]


def test_a_caller_who_leaves_pays_for_the_text_that_passed() -> None:
    provider = answering(stream(ROLE, TEXT))
    wired = Wired(provider, **limiting(TPM, SLOTS))

    record = play(left_midway(wired))
    assert record.ending == "abandoned"
    assert record.settled_amounts == {"tpm|key=demo|rate=10000000/60000": 2_000}  # "Hello" at four bytes a token
    assert left(wired, SLOTS, "slots|key=demo") == 1


def test_a_caller_who_leaves_teaches_what_passed_and_not_what_it_is_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what peers come to would be learned from itself, and never be less again."""
    wired = Wired(answering(stream(ROLE, TEXT)), **limiting(TPM))
    estimator = wired.gateway.estimator
    for _ in range(60):
        estimator.learn_abandoned("acme", "gpt", 500)
    learned: list[int] = []
    monkeypatch.setattr(estimator, "learn_abandoned", lambda _org, _model, tokens: learned.append(tokens))

    settled = play(left_midway(wired)).settled_amounts
    assert settled["tpm|key=demo|rate=10000000/60000"] >= 500_000
    assert learned == [2]


def test_a_caller_who_leaves_a_model_that_thinks_unseen_pays_what_was_reserved() -> None:
    wired = Wired(answering(stream(ROLE, TEXT)), **limiting(TPM))
    wired.gateway.estimator.learn("acme", "gpt", Asked(text_bytes=40), Usage(10, 10, reasoning_tokens=4))

    assert play(left_midway(wired)).settled_amounts == {"tpm|key=demo|rate=10000000/60000": 1_024_000}


@pytest.mark.parametrize(("say", "tokens"), [([], 1_024_000), (None, 0)], ids=["sent", "not sent"])
def test_a_defect_of_ours_charges_what_was_taken_if_any_of_it_was_sent(
    say: list[bytes] | None, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever finds a request that crashes us must not use a provider for nothing by it."""
    connected = Transfer.run

    async def crash(transfer: Transfer, targets: Sequence[Any], admit: Admit | None = None) -> Outcome:
        work = asyncio.create_task(connected(transfer, targets if say is not None else [], admit))
        await turns(20)
        work.cancel()
        await asyncio.wait([work])
        raise ZeroDivisionError

    async def story(wired: Wired) -> Record:
        wired.gateway.wheel.start()
        ex = asked()
        identify(ex, wired.gateway)
        with pytest.raises(ZeroDivisionError):
            await run(ex, wired.gateway)
        finish(ex, wired.gateway)
        wired.gateway.wheel.stop()
        return wired.recorded[-1]

    monkeypatch.setattr(Transfer, "run", crash)
    provider = FakeProvider()
    wired = Wired(provider, **limiting(TPM))
    assert play(story(wired)).settled_amounts == {"tpm|key=demo|rate=10000000/60000": tokens}


@pytest.mark.parametrize("crash", [False, True])
def test_the_record_says_in_whose_slices_it_was_counted_however_it_ended(
    crash: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control settles again what does not say so, which would charge it twice."""
    wired = Wired(answering(), **limiting(TPM))
    wired.gateway.limiter = Limiter(Engines(SliceEngine()), owner=7)
    if crash:
        monkeypatch.setattr(Transfer, "run", mock.Mock(side_effect=ZeroDivisionError))

    async def story() -> Record:
        wired.gateway.wheel.start()
        ex = asked()
        identify(ex, wired.gateway)
        with suppress(ZeroDivisionError):
            await run(ex, wired.gateway)
        finish(ex, wired.gateway)
        wired.gateway.wheel.stop()
        return wired.recorded[-1]

    record = play(story())
    assert (record.ending, record.limits_verdict) == ("refused" if crash else "complete", "slice:abc")


def test_answers_teach_what_to_expect() -> None:
    wired = Wired(answering(), **limiting(said(TPM, tokens=1_000_000)))
    for number in range(60):
        play(served(wired, asked(exchange_id=f"req_{number}")))
    last = [line for line in wired.desk.lines.told() if line["kind"] == "decision"][-1]
    assert 2_000 <= last["hold_amounts"]["tpm|key=demo|rate=1000000000/60000"] < 10_000  # answers have two tokens


def test_a_refusal_teaches_nothing_though_it_tells_usage() -> None:
    wired = Wired(answering(answer(400, b'{"error":{},' + USED_UP)), **limiting(said(TPM, tokens=1_000_000)))
    for number in range(60):
        play(served(wired, asked(exchange_id=f"req_{number}")))
    last = [line for line in wired.desk.lines.told() if line["kind"] == "decision"][-1]
    assert last["hold_amounts"]["tpm|key=demo|rate=1000000000/60000"] == 1_024_000


def test_a_large_body_is_measured_off_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    on_loop: list[bool] = []
    measure = spending.asked_of

    def asked_of(surface: str, body: bytes, facts: RequestFacts | None, length: int) -> Asked:
        on_loop.append(threading.current_thread() is threading.main_thread())
        return measure(surface, body, facts, length)

    monkeypatch.setattr(spending, "asked_of", asked_of)
    wired = Wired(answering(), inline_bytes=64, **limiting(TPM))
    play(served(wired, asked(body=b'{"model":"gpt","messages":[]}', exchange_id="req_0")))
    body = b'{"model":"gpt","messages":[{"role":"user","content":"%b"}]}' % (b"a" * 400)
    play(served(wired, asked(body=body)))
    assert on_loop == [True, False]
    amounts = [line["hold_amounts"] for line in wired.desk.lines.told() if line["kind"] == "decision"][-1]
    assert amounts["tpm|key=demo|rate=10000000/60000"] == (100 + 7 + 1_024) * 1_000


def said(rule: Rule, **changes: Any) -> Rule:
    return Rule(**{name: getattr(rule, name) for name in rule.__struct_fields__} | changes)
