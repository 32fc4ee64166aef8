"""From the first attempt to the end: what is tried, what goes out when, every time limit, every ending."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from gateway.errors import (
    GatewayError,
    NoTarget,
    Overloaded,
    ProviderConfiguration,
    StreamTruncated,
    UpstreamConnectError,
    UpstreamConnectTimeout,
    UpstreamReset,
    UpstreamStatus,
    UpstreamTimeout,
)
from gateway.record import Ending, Outcome, Usage
from gateway.relay.outgoing import Target
from tests.fakes.provider import (
    DONE,
    END,
    ROLE,
    SSE,
    STOP,
    STREAMED,
    TEXT,
    USAGE,
    USED,
    WHOLE,
    FakeProvider,
    Line,
    answer,
    ask,
    body_of,
    chunk,
    connection_of,
    stream,
    turns,
)
from tests.fakes.transfer import Stage, run, scene

PLAIN = b'{"model":"gpt","messages":[]}'
OK = answer(200, WHOLE)
BUSY = answer(503, b'{"error":{"message":"busy"}}')
COMMENT = b": keep-alive\n\n"
EVENTS = (ROLE, TEXT, STOP, DONE)


def causes(stage: Stage) -> list[str]:
    return [row.cause for row in stage.transfer.attempts]


# --- whole answers --------------------------------------------------------------------------------------------------


def test_a_whole_answer_is_handed_on_with_its_usage() -> None:
    async def main() -> None:
        async with scene(PLAIN) as stage:
            await stage.asked()
            stage.provider.line.says(OK)
            outcome = await stage.outcome()
            assert (outcome.ending, outcome.status, outcome.usage) == (Ending.COMPLETE, 200, USED)
            assert (stage.reply.ending, stage.reply.body) == ("whole", WHOLE)
            assert (stage.reply.head.status, stage.reply.head.length) == (200, len(WHOLE))
            assert stage.reply.head.target == "p0/gpt-real"
            assert outcome.upstream_bytes == len(stage.provider.line.asked)
            assert outcome.downstream_bytes == len(WHOLE)
            assert outcome.changed == stage.reply.head.changed == ("model",)
            assert not outcome.streamed
            assert stage.provider.pool.idle == 1

    run(main())


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refusal_that_is_the_callers_goes_back_as_it_came(status: int) -> None:
    async def main() -> None:
        async with scene(PLAIN, providers=2) as stage:
            await stage.asked()
            stage.provider.line.says(answer(status, b'{"error":{"message":"no"}}'))
            outcome = await stage.outcome()
            assert (outcome.ending, outcome.status, causes(stage)) == (Ending.COMPLETE, status, [f"status_{status}"])
            assert stage.reply.body == b'{"error":{"message":"no"}}'
            assert stage.providers[1].dials == 0

    run(main())


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_providers_own_trouble_is_tried_elsewhere(status: int) -> None:
    async def main() -> None:
        async with scene(PLAIN, providers=2) as stage:
            await stage.asked()
            stage.provider.line.says(answer(status, b"{}"))
            await turns()
            stage.providers[1].line.says(OK)
            outcome = await stage.outcome()
            assert (outcome.ending, causes(stage)) == (Ending.COMPLETE, ["upstream_status", "ok"])
            assert [row.status for row in outcome.attempts] == [status, 200]
            assert stage.reply.head.target == "p1/gpt-real"

    run(main())


def test_when_all_have_failed_the_last_refusal_is_the_answer() -> None:
    async def main() -> None:
        async with scene(PLAIN, providers=2) as stage:
            await stage.asked()
            stage.provider.line.says(answer(500, b'{"error":{"message":"first"}}'))
            await turns()
            stage.providers[1].line.says(BUSY)
            outcome = await stage.outcome()
            assert (outcome.ending, outcome.status, outcome.error) == (Ending.FAILED, 503, "upstream_status")
            assert stage.reply.body == b'{"error":{"message":"busy"}}'
            assert len(stage.reply.head.attempts) == 2

    run(main())


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_our_account_refused_is_never_shown_as_it_came(status: int) -> None:
    async def main() -> None:
        async with scene(PLAIN) as stage:
            await stage.asked()
            stage.provider.line.says(answer(status, b'{"error":{"message":"bad key sk-own"}}'))
            outcome = await stage.outcome()
            assert (outcome.ending, outcome.error, outcome.status) == (Ending.FAILED, "provider_configuration", 502)
            error = stage.reply.error
            assert isinstance(error, ProviderConfiguration)
            assert "sk-own" not in error.message
            assert [row.status for row in stage.reply.attempts] == [status]

    run(main())


# --- connecting -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refusal", [UpstreamConnectError("no"), UpstreamConnectTimeout("late")])
def test_a_provider_that_cannot_be_reached_is_passed_over(refusal: UpstreamConnectError) -> None:
    async def main() -> None:
        async with scene(PLAIN, providers=2) as stage:
            stage.provider.refusals = [refusal]
            await stage.asked()
            stage.providers[1].line.says(OK)
            outcome = await stage.outcome()
            assert (outcome.ending, causes(stage)) == (Ending.COMPLETE, [refusal.code, "ok"])
            assert outcome.attempts[0].target == "p0/gpt-real"

    run(main())


def test_nobody_reached_is_told_with_every_attempt() -> None:
    async def main() -> None:
        async with scene(PLAIN, providers=2) as stage:
            for provider in stage.providers:
                provider.refusals = [UpstreamConnectError("no")]
            stage.begin()
            outcome = await stage.outcome()
            assert (outcome.ending, outcome.upstream_bytes) == (Ending.FAILED, 0)
            assert isinstance(stage.reply.error, UpstreamConnectError)
            assert len(stage.reply.attempts) == 2

    run(main())


def test_no_target_is_an_error_of_its_own() -> None:
    async def main() -> None:
        async with scene(PLAIN) as stage:
            with pytest.raises(NoTarget):
                await stage.transfer.run([])

    run(main())


def test_a_full_pool_is_passed_over() -> None:
    async def main() -> None:
        async with scene(PLAIN, providers=2) as stage:
            full = FakeProvider(name="full", max_connections=1)
            await full.pool.connect(1)
            stage.begin([full.target(), stage.providers[1].target()])
            await turns()
            stage.providers[1].line.says(OK)
            outcome = await stage.outcome()
            assert (outcome.ending, causes(stage)) == (Ending.COMPLETE, ["overloaded", "ok"])

    run(main())


def test_nothing_but_full_pools_is_said_with_the_attempts_that_were_made() -> None:
    async def main() -> None:
        async with scene(PLAIN) as stage:
            full = FakeProvider(name="full", max_connections=1)
            await full.pool.connect(1)
            stage.begin([stage.provider.target(), full.target()])
            await turns()
            stage.provider.line.says(BUSY)
            outcome = await stage.outcome()
            assert (outcome.ending, outcome.error, causes(stage)) == (
                Ending.FAILED,
                "overloaded",
                ["upstream_status", "overloaded"],
            )
            assert outcome.upstream_bytes > 0
            assert isinstance(stage.reply.error, Overloaded)

    run(main())


def test_no_more_targets_are_tried_than_the_route_allows() -> None:
    async def main() -> None:
        async with scene(PLAIN, providers=4, max_attempts=2) as stage:
            for provider in stage.providers:
                provider.always = (BUSY,)
            stage.begin()
            assert (await stage.outcome()).ending is Ending.FAILED
            assert [provider.dials for provider in stage.providers] == [1, 1, 0, 0]

    run(main())


# --- connections that had died unseen -------------------------------------------------------------------------------


def test_a_stale_connection_is_replaced_without_an_attempt_being_spent() -> None:
    async def main() -> None:
        async with scene(PLAIN) as stage:
            old = await stage.provider.warm()
            stage.begin()
            await turns(2)
            old.resets()
            await turns()
            assert stage.provider.line is not old
            stage.provider.line.says(OK)
            outcome = await stage.outcome()
            assert (outcome.ending, causes(stage)) == (Ending.COMPLETE, ["ok"])

    run(main())


def test_a_caller_who_leaves_while_a_stale_connection_is_replaced_has_asked_nobody_yet() -> None:
    async def main() -> None:
        async with scene(PLAIN) as stage:
            old = await stage.provider.warm()
            stage.provider.hangs = asyncio.Event()
            stage.begin()
            await turns(2)
            old.resets()
            await turns()
            outcome = await stage.leave()
            assert (outcome.ending, outcome.unsent, causes(stage)) == (Ending.ABANDONED, True, [])
            assert outcome.upstream_bytes > 0  # it was written, and nobody was there

    run(main())


def test_a_fresh_connection_that_dies_is_an_attempt() -> None:
    async def main() -> None:
        async with scene(PLAIN) as stage:
            await stage.asked()
            stage.provider.line.resets()
            outcome = await stage.outcome()
            assert (outcome.ending, causes(stage)) == (Ending.FAILED, ["upstream_reset"])
            assert isinstance(stage.reply.error, UpstreamReset)
            assert stage.provider.dials == 1

    run(main())


def test_what_might_be_created_twice_is_never_sent_twice() -> None:
    async def main() -> None:
        async with scene(ask(PLAIN, replayable=False), providers=2) as stage:
            old = await stage.provider.warm()
            stage.begin()
            await turns(2)
            old.resets()
            outcome = await stage.outcome()
            assert (outcome.ending, causes(stage)) == (Ending.FAILED, ["upstream_reset"])
            assert stage.provider.dials == 1
            assert stage.providers[1].dials == 0

    run(main())


def test_what_might_be_created_twice_may_go_elsewhere_while_nothing_was_sent() -> None:
    async def main() -> None:
        async with scene(ask(PLAIN, replayable=False), providers=2) as stage:
            stage.provider.refusals = [UpstreamConnectError("no")]
            await stage.asked()
            stage.providers[1].line.says(OK)
            assert (await stage.outcome()).ending is Ending.COMPLETE

    run(main())


# --- streams --------------------------------------------------------------------------------------------------------


def test_nothing_goes_out_before_content_and_then_every_byte_as_it_came() -> None:
    async def main() -> None:
        async with scene(STREAMED) as stage:
            await stage.asked()
            line = stage.provider.line
            line.says(stream(ROLE))
            assert stage.reply.calls == []
            line.says(chunk(TEXT))
            assert stage.reply.calls == ["start", "data", "data"]
            assert stage.reply.head.sse
            assert stage.reply.head.length == -1
            line.says(chunk(STOP))
            line.says(chunk(DONE) + END)
            outcome = await stage.outcome()
            assert (outcome.ending, outcome.streamed, stage.reply.ending) == (Ending.COMPLETE, True, "end")
            assert stage.reply.body == b"".join(EVENTS)
            assert outcome.downstream_bytes == len(stage.reply.body)
            assert outcome.first_content_us >= 0
            assert stage.provider.pool.idle == 1

    run(main())


def test_an_error_inside_a_stream_before_content_is_tried_elsewhere() -> None:
    async def main() -> None:
        async with scene(STREAMED, providers=2) as stage:
            await stage.asked()
            stage.provider.line.says(stream(ROLE, b'data: {"error":{"message":"overloaded"}}\n\n'))
            await turns()
            stage.providers[1].line.says(stream(*EVENTS), END)
            outcome = await stage.outcome()
            assert (outcome.ending, causes(stage)) == (Ending.COMPLETE, ["upstream_error_in_stream", "ok"])
            assert stage.reply.body == b"".join(EVENTS)

    run(main())


@pytest.mark.parametrize("break_off", [Line.resets, Line.ends], ids=["reset", "end"])
def test_a_stream_that_breaks_off_before_content_is_tried_elsewhere(break_off: Callable[[Line], None]) -> None:
    async def main() -> None:
        async with scene(STREAMED, providers=2) as stage:
            await stage.asked()
            stage.provider.line.says(stream(ROLE))
            break_off(stage.provider.line)
            await turns()
            stage.providers[1].line.says(stream(*EVENTS), END)
            assert (await stage.outcome()).ending is Ending.COMPLETE
            assert stage.reply.body == b"".join(EVENTS)

    run(main())


@pytest.mark.parametrize("break_off", [Line.resets, Line.ends], ids=["reset", "end"])
def test_a_stream_that_breaks_off_after_content_is_told_and_never_repeated(break_off: Callable[[Line], None]) -> None:
    async def main() -> None:
        async with scene(STREAMED, providers=2) as stage:
            await stage.asked()
            stage.provider.line.says(stream(ROLE, TEXT))
            break_off(stage.provider.line)
            outcome = await stage.outcome()
            assert (outcome.ending, outcome.error, causes(stage)) == (
                Ending.TRUNCATED,
                "upstream_truncated",
                ["upstream_reset"],
            )
            assert isinstance(stage.reply.error, StreamTruncated)
            assert stage.reply.body == ROLE + TEXT
            assert stage.providers[1].dials == 0

    run(main())


def test_a_clean_end_without_the_mark_is_truncated_too() -> None:
    async def main() -> None:
        async with scene(STREAMED) as stage:
            await stage.asked()
            stage.provider.line.says(stream(ROLE, TEXT), END)
            outcome = await stage.outcome()
            assert (outcome.ending, causes(stage)) == (Ending.TRUNCATED, ["upstream_truncated"])

    run(main())


def test_an_error_the_provider_tells_after_content_is_the_last_word() -> None:
    async def main() -> None:
        async with scene(STREAMED) as stage:
            said = b'data: {"error":{"message":"gone"}}\n\n'
            await stage.asked()
            stage.provider.line.says(stream(ROLE, TEXT, said), END)
            outcome = await stage.outcome()
            assert (outcome.ending, stage.reply.ending) == (Ending.TRUNCATED, "cut")
            assert stage.reply.body == ROLE + TEXT + said

    run(main())


def test_a_stream_that_is_complete_though_empty_is_complete() -> None:
    async def main() -> None:
        async with scene(STREAMED) as stage:
            await stage.asked()
            stage.provider.line.says(stream(DONE), END)
            outcome = await stage.outcome()
            assert (outcome.ending, stage.reply.body) == (Ending.COMPLETE, DONE)

    run(main())


def test_an_empty_stream_is_tried_elsewhere() -> None:
    async def main() -> None:
        async with scene(STREAMED, providers=2) as stage:
            await stage.asked()
            stage.provider.line.says(stream(), END)
            await turns()
            stage.providers[1].line.says(stream(*EVENTS), END)
            await stage.outcome()
            assert causes(stage) == ["upstream_empty", "ok"]

    run(main())


def test_after_the_mark_the_end_may_be_missing() -> None:
    async def main() -> None:
        async with scene(STREAMED) as stage:
            await stage.asked()
            stage.provider.line.says(stream(*EVENTS))
            assert stage.reply.ending == ""
            await stage.passes(2)
            outcome = await stage.outcome()
            assert (outcome.ending, stage.reply.ending) == (Ending.COMPLETE, "end")
            assert stage.provider.pool.open == 0

    run(main())


@pytest.mark.parametrize("break_off", [Line.resets, Line.ends], ids=["reset", "end"])
def test_after_the_mark_how_the_connection_ends_is_no_matter(break_off: Callable[[Line], None]) -> None:
    async def main() -> None:
        async with scene(STREAMED) as stage:
            await stage.asked()
            stage.provider.line.says(stream(*EVENTS))
            break_off(stage.provider.line)
            assert (await stage.outcome()).ending is Ending.COMPLETE

    run(main())


# --- silence --------------------------------------------------------------------------------------------------------


def test_a_silent_stream_is_kept_alive_and_failover_stays_open() -> None:
    async def main() -> None:
        async with scene(STREAMED, providers=2, hold_ns=10, comment_ns=15, first_byte_ns=100) as stage:
            await stage.asked()
            await stage.passes(9)
            assert stage.reply.calls == []
            await stage.passes(2)
            assert (stage.reply.status, stage.reply.body) == (200, COMMENT)
            await stage.passes(33)
            assert stage.reply.body == 3 * COMMENT
            stage.provider.line.resets()
            await turns()
            stage.providers[1].line.says(stream(*EVENTS), END)
            outcome = await stage.outcome()
            assert (outcome.ending, outcome.status) == (Ending.COMPLETE, 200)
            assert stage.reply.body == 3 * COMMENT + b"".join(EVENTS)
            assert stage.reply.calls.count("start") == 1

    run(main())


def test_behind_comments_a_refusal_is_an_event() -> None:
    async def main() -> None:
        async with scene(STREAMED) as stage:
            await stage.asked()
            await stage.passes(11)
            stage.provider.line.says(BUSY)
            outcome = await stage.outcome()
            assert (outcome.ending, stage.reply.ending) == (Ending.FAILED, "fail")
            assert isinstance(stage.reply.error, UpstreamStatus)

    run(main())


def test_behind_comments_the_callers_own_mistake_is_told_too() -> None:
    async def main() -> None:
        async with scene(STREAMED) as stage:
            await stage.asked()
            await stage.passes(11)
            stage.provider.line.says(answer(400, b'{"error":{"message":"no"}}'))
            await stage.outcome()
            assert stage.reply.ending == "fail"

    run(main())


def test_a_request_that_asked_for_no_stream_is_never_held() -> None:
    async def main() -> None:
        async with scene(PLAIN) as stage:
            await stage.asked()
            await stage.passes(50)
            assert stage.reply.calls == []
            stage.provider.line.says(OK)
            assert (await stage.outcome()).ending is Ending.COMPLETE

    run(main())


# --- time limits ----------------------------------------------------------------------------------------------------


def test_no_byte_in_time() -> None:
    async def main() -> None:
        async with scene(PLAIN, providers=2) as stage:
            await stage.asked()
            await stage.passes(59)
            assert stage.provider.line.is_open()
            await stage.passes(2)
            assert not stage.provider.line.is_open()
            stage.providers[1].line.says(OK)
            assert (await stage.outcome()).ending is Ending.COMPLETE
            assert causes(stage) == ["upstream_timeout", "ok"]

    run(main())


def test_no_content_in_time() -> None:
    async def main() -> None:
        async with scene(STREAMED) as stage:
            await stage.asked()
            stage.provider.line.says(stream(ROLE))
            await stage.passes(599)
            assert stage.provider.line.is_open()
            await stage.passes(2)
            outcome = await stage.outcome()
            error = stage.reply.error
            assert isinstance(error, UpstreamTimeout)
            assert (error.which, outcome.ending) == ("first_content", Ending.FAILED)

    run(main())


def test_a_pause_within_a_stream_is_bounded_and_each_chunk_begins_it_anew() -> None:
    async def main() -> None:
        async with scene(STREAMED) as stage:
            await stage.asked()
            stage.provider.line.says(stream(ROLE, TEXT))
            await stage.passes(299)
            stage.provider.line.says(chunk(TEXT))
            await stage.passes(299)
            assert stage.provider.line.is_open()
            await stage.passes(2)
            outcome = await stage.outcome()
            assert (outcome.ending, causes(stage)) == (Ending.TRUNCATED, ["upstream_timeout"])
            assert not stage.provider.line.is_open()

    run(main())


def test_the_whole_is_bounded() -> None:
    async def main() -> None:
        async with scene(STREAMED, providers=2, total_ns=100) as stage:
            await stage.asked()
            stage.provider.line.says(stream(ROLE))
            await stage.passes(101)
            outcome = await stage.outcome()
            assert outcome.ending is Ending.FAILED
            assert isinstance(stage.reply.error, UpstreamTimeout)
            assert stage.providers[1].dials == 0, "there is no time left for another"

    run(main())


def test_the_whole_is_bounded_while_streaming() -> None:
    async def main() -> None:
        async with scene(STREAMED, total_ns=100) as stage:
            await stage.asked()
            stage.provider.line.says(stream(ROLE, TEXT))
            for _ in range(11):
                await stage.passes(10)
                if stage.provider.line.is_open():
                    stage.provider.line.says(chunk(TEXT))
            assert (await stage.outcome()).ending is Ending.TRUNCATED

    run(main())


def test_while_connecting_the_dialler_keeps_the_time_and_comments_go_out() -> None:
    async def main() -> None:
        async with scene(STREAMED, total_ns=100) as stage:
            stage.provider.hangs = asyncio.Event()
            await stage.asked()
            await stage.passes(150)
            assert stage.reply.body.startswith(COMMENT)
            stage.provider.refusals = [UpstreamConnectTimeout("late")]
            stage.provider.hangs.set()
            outcome = await stage.outcome()
            assert (outcome.ending, causes(stage)) == (Ending.FAILED, ["upstream_connect_timeout"])

    run(main())


def test_each_attempt_has_its_own_first_byte() -> None:
    async def main() -> None:
        async with scene(PLAIN, providers=2) as stage:
            await stage.asked()
            await stage.passes(61)
            await stage.passes(59)
            stage.providers[1].line.says(OK)
            assert (await stage.outcome()).ending is Ending.COMPLETE

    run(main())


# --- the caller -----------------------------------------------------------------------------------------------------


def test_a_caller_who_leaves_while_connecting() -> None:
    async def main() -> None:
        async with scene(PLAIN) as stage:
            stage.provider.hangs = asyncio.Event()
            await stage.asked()
            outcome = await stage.leave()
            assert (outcome.ending, outcome.upstream_bytes) == (Ending.ABANDONED, 0)
            assert stage.reply.calls == []

    run(main())


def test_a_caller_who_leaves_while_waiting() -> None:
    async def main() -> None:
        async with scene(PLAIN) as stage:
            await stage.asked()
            outcome = await stage.leave()
            assert (outcome.ending, causes(stage)) == (Ending.ABANDONED, ["caller_gone"])
            assert outcome.upstream_bytes == len(stage.provider.line.asked)
            assert not stage.provider.line.is_open()

    run(main())


def test_a_caller_who_leaves_between_two_attempts() -> None:
    async def main() -> None:
        async with scene(PLAIN, providers=2) as stage:
            await stage.asked()
            stage.provider.line.resets()
            await turns(1)
            outcome = await stage.leave()
            assert outcome.ending is Ending.ABANDONED
            assert causes(stage)[0] == "upstream_reset"

    run(main())


def test_a_caller_who_leaves_a_stream_is_charged_what_was_seen() -> None:
    async def main() -> None:
        async with scene(STREAMED) as stage:
            await stage.asked()
            usage = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
            stage.provider.line.says(stream(ROLE, TEXT, usage))
            outcome = await stage.leave()
            assert (outcome.ending, outcome.usage) == (Ending.ABANDONED, USED)
            assert not stage.provider.line.is_open()
            assert causes(stage) == ["caller_gone"]

    run(main())


def test_a_caller_who_leaves_when_all_is_said_changes_nothing() -> None:
    async def main() -> None:
        async with scene(PLAIN) as stage:
            await stage.asked()
            stage.provider.line.says(OK)
            outcome = await stage.leave()
            assert (outcome.ending, causes(stage)) == (Ending.COMPLETE, ["ok"])

    run(main())


def test_a_caller_who_reads_slowly_slows_the_provider_down() -> None:
    async def main() -> None:
        async with scene(STREAMED) as stage:
            await stage.asked()
            line = stage.provider.line
            line.says(stream(ROLE, TEXT))
            stage.reply.paused = True
            stage.transfer.pause()
            assert not line.transport.is_reading()
            stage.reply.paused = False
            stage.transfer.resume()
            assert line.transport.is_reading()
            line.says(chunk(STOP), chunk(DONE), END)
            assert (await stage.outcome()).ending is Ending.COMPLETE

    run(main())


def test_a_caller_who_was_slow_before_this_answer_slows_it_down_too() -> None:
    async def main() -> None:
        async with scene(STREAMED) as stage:
            stage.reply.paused = True  # the answer before this one still waits to be read
            await stage.asked()
            stage.provider.line.says(stream(ROLE, TEXT))
            assert not stage.provider.line.transport.is_reading()
            stage.reply.paused = False
            stage.transfer.resume()
            stage.provider.line.says(chunk(DONE), END)
            assert (await stage.outcome()).ending is Ending.COMPLETE

    run(main())


def test_a_caller_who_reads_nothing_for_too_long_is_given_up() -> None:
    async def main() -> None:
        async with scene(STREAMED) as stage:
            await stage.asked()
            stage.provider.line.says(stream(ROLE, TEXT))
            stage.reply.paused = True
            stage.transfer.pause()
            await stage.passes(301)
            outcome = await stage.outcome()
            assert (outcome.ending, causes(stage), stage.reply.ending) == (Ending.ABANDONED, ["slow_reader"], "cut")

    run(main())


# --- uploads --------------------------------------------------------------------------------------------------------


class Arriving:
    """An upload that a test delivers."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def attach(self, sink: object) -> None:
        self.calls.append("attach")
        self.sink = sink

    def pause(self) -> None:
        self.calls.append("pause")

    def resume(self) -> None:
        self.calls.append("resume")


@pytest.mark.parametrize(("length", "coded"), [(7, False), (-1, True)])
def test_an_upload_goes_up_as_it_arrives_framed_as_announced(length: int, *, coded: bool) -> None:
    async def main() -> None:
        upload = Arriving()
        out = ask(b"abc", "passthrough", path="/files", length=length, upload=upload, replayable=False)
        async with scene(out) as stage:
            await stage.asked()
            assert upload.calls == ["attach"]
            for data in (b"de", b"", b"fg"):
                stage.transfer.upload_data(data)
            stage.transfer.upload_end()
            request = stage.provider.line.asked
            assert (b"transfer-encoding: chunked" in request) == coded
            assert body_of(request) == b"abcdefg"
            assert request.endswith(b"0\r\n\r\n") == coded
            stage.provider.line.says(answer(200, b"{}"))
            outcome = await stage.outcome()
            assert outcome.ending is Ending.COMPLETE
            assert outcome.upstream_bytes == len(request)
            assert stage.provider.pool.idle == 1

    run(main())


def test_a_provider_that_reads_slowly_slows_the_upload_down() -> None:
    async def main() -> None:
        upload = Arriving()
        async with scene(ask(b"abc", "passthrough", length=100, upload=upload, replayable=False)) as stage:
            await stage.asked()
            connection = connection_of(stage.provider.line)
            connection.pause_writing()
            connection.resume_writing()
            assert upload.calls == ["attach", "pause", "resume"]
            await stage.leave()

    run(main())


def test_an_answer_before_the_end_of_the_upload_is_the_answer() -> None:
    async def main() -> None:
        upload = Arriving()
        async with scene(ask(b"abc", "passthrough", length=100, upload=upload, replayable=False)) as stage:
            await stage.asked()
            stage.provider.line.says(answer(413, b"{}"))
            outcome = await stage.outcome()
            stage.transfer.upload_data(b"late")
            stage.transfer.upload_end()
            assert (outcome.ending, outcome.status) == (Ending.COMPLETE, 413)
            assert stage.provider.pool.open == 0, "a connection with half a request on it is not used again"

    run(main())


def test_an_upload_is_never_sent_again() -> None:
    async def main() -> None:
        upload = Arriving()
        async with scene(ask(b"abc", "passthrough", length=100, upload=upload), providers=2) as stage:
            await stage.asked()
            stage.provider.line.resets()
            assert (await stage.outcome()).ending is Ending.FAILED
            assert stage.providers[1].dials == 0

    run(main())


def test_an_upload_goes_elsewhere_while_nobody_was_reached() -> None:
    async def main() -> None:
        upload = Arriving()
        async with scene(ask(b"abc", "passthrough", length=3, upload=upload), providers=2) as stage:
            stage.provider.refusals = [UpstreamConnectError("no")]
            await stage.asked()
            assert upload.calls == ["attach"]
            stage.transfer.upload_end()
            stage.providers[1].line.says(answer(200, b"{}"))
            assert (await stage.outcome()).ending is Ending.COMPLETE

    run(main())


# --- defects ----------------------------------------------------------------------------------------------------------


def test_a_request_that_cannot_be_made_costs_no_connection() -> None:
    async def main() -> None:
        async with scene(PLAIN) as stage:
            broken = stage.provider.target()
            broken.encode = cast("Any", None)  # type: ignore[method-assign] # calling it raises
            with pytest.raises(TypeError):
                await stage.transfer.run([broken])
            await turns()
            assert stage.provider.pool.open == 0

    run(main())


# --- passthrough ----------------------------------------------------------------------------------------------------


def test_a_raw_answer_passes_unread_whatever_it_says() -> None:
    async def main() -> None:
        async with scene(ask(b"{}", "passthrough", path="/x")) as stage:
            await stage.asked()
            stage.provider.line.says(answer(500, b"\x00\x01", b"application/x-own"))
            outcome = await stage.outcome()
            assert (outcome.ending, outcome.status, stage.reply.body) == (Ending.COMPLETE, 500, b"\x00\x01")

    run(main())


def test_an_answer_to_head_keeps_its_length_and_has_no_body() -> None:
    async def main() -> None:
        async with scene(ask(b"", "passthrough", path="/x", method="HEAD")) as stage:
            await stage.asked()
            stage.provider.line.says(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
            await stage.outcome()
            assert (stage.reply.ending, stage.reply.head.length, stage.reply.body) == ("whole", 9, b"")

    run(main())


def test_a_raw_stream_is_not_held() -> None:
    async def main() -> None:
        async with scene(ask(b"{}", "passthrough", path="/x")) as stage:
            await stage.asked()
            await stage.passes(20)
            assert stage.reply.calls == []
            stage.provider.line.says(answer(200, b"data: x\n\n", SSE))
            await stage.outcome()
            assert stage.reply.body == b"data: x\n\n"

    run(main())


def test_errors_told_to_a_caller_name_no_address() -> None:
    async def main() -> None:
        async with scene(PLAIN) as stage:
            await stage.asked()
            stage.provider.line.says(b"garbage\r\n\r\n")
            await stage.outcome()
            error = stage.reply.error
            assert isinstance(error, GatewayError)
            assert "provider.test" not in error.message
            assert "garbage" not in error.message

    run(main())


# --- who may be tried next ------------------------------------------------------------------------------------------


class Door:
    """Asked before each further attempt; lets in whom it is told to."""

    def __init__(self, *admitted: str) -> None:
        self.admitted = admitted
        self.asked: list[tuple[str, Outcome]] = []

    async def admit(self, target: Target, failed: Outcome) -> bool:
        self.asked.append((target.name(), failed))
        await asyncio.sleep(0)
        return target.account.name in self.admitted


def failing(stage: Stage, *providers: int) -> None:
    for index in providers:
        stage.providers[index].always = (answer(500, b"{}"),)


def test_a_target_that_may_not_be_tried_is_passed_over() -> None:
    async def story() -> None:
        async with scene(PLAIN, providers=3) as stage:
            failing(stage, 0)
            stage.providers[2].always = (answer(200, WHOLE),)
            door = Door("p2")
            stage.begin(admit=door.admit)
            outcome = await stage.outcome()
            assert [attempt.target for attempt in outcome.attempts] == ["p0/gpt-real", "p2/gpt-real"]
            assert [asked for asked, _ in door.asked] == ["p1/gpt-real", "p2/gpt-real"]
            assert door.asked[0][1] == door.asked[1][1]
            failed = door.asked[0][1]
            assert (failed.ending, failed.attempts[-1].cause) == (Ending.FAILED, UpstreamStatus.code)
            assert (failed.usage, failed.unsent, failed.broken) == (None, False, False)

    run(story())


def test_when_nobody_else_may_be_tried_the_last_failure_is_told() -> None:
    async def story() -> None:
        async with scene(PLAIN, providers=2) as stage:
            failing(stage, 0)
            stage.begin(admit=Door().admit)
            outcome = await stage.outcome()
            assert (outcome.ending, outcome.status, len(outcome.attempts)) == (Ending.FAILED, 500, 1)

    run(story())


def test_nothing_was_sent_to_a_provider_that_could_not_be_reached() -> None:
    async def story() -> None:
        async with scene(PLAIN, providers=3) as stage:
            failing(stage, 0)
            stage.providers[1].refusals = [UpstreamConnectError("no")]
            stage.providers[2].always = (answer(200, WHOLE),)
            door = Door("p1", "p2")
            stage.begin(admit=door.admit)
            await stage.outcome()
            assert [failed.unsent for _, failed in door.asked] == [False, True]

    run(story())


def test_a_caller_may_leave_while_it_is_asked() -> None:
    async def story() -> None:
        async with scene(PLAIN, providers=2) as stage:
            failing(stage, 0)
            waiting = asyncio.get_running_loop().create_future()

            async def admit(*_: object) -> bool:
                waiting.set_result(None)
                await asyncio.sleep(100)
                return True

            stage.begin(admit=admit)
            await waiting
            outcome = await stage.leave()
            assert (outcome.ending, outcome.unsent, causes(stage)) == (Ending.ABANDONED, False, ["upstream_status"])

    run(story())


def test_a_caller_may_leave_while_the_next_is_connected() -> None:
    async def story() -> None:
        async with scene(PLAIN, providers=2) as stage:
            failing(stage, 0)
            stage.providers[1].hangs = asyncio.Event()
            await stage.asked()
            await turns()
            outcome = await stage.leave()
            assert (outcome.ending, outcome.unsent, causes(stage)) == (Ending.ABANDONED, True, ["upstream_status"])

    run(story())


@pytest.mark.parametrize(
    ("body", "says", "usage", "broken"),
    [
        (PLAIN, (answer(500, b'{"error":{},"usage":{"prompt_tokens":3,"completion_tokens":2}}'),), USED, False),
        (PLAIN, (answer(200, b'{"error":{},"usage":{"prompt_tokens":3,"completion_tokens":2}}'),), USED, False),
        (PLAIN, (answer(500, b"not json"),), None, False),
        (PLAIN, (answer(200, WHOLE)[:-5], b""), None, True),
        (STREAMED, (stream(ROLE, USAGE) + END,), USED, False),
        (STREAMED, (stream(ROLE),), None, False),
    ],
    ids=["refusal", "error inside", "no json", "half", "no content", "no more"],
)
def test_what_a_failed_attempt_has_used_is_told_as_far_as_it_is_known(
    body: bytes, says: tuple[bytes, ...], usage: Usage | None, *, broken: bool
) -> None:
    async def story() -> None:
        async with scene(body) as stage:
            await stage.asked()
            stage.provider.line.says(*says)
            await turns()
            stage.provider.line.resets()
            outcome = await stage.outcome()
            assert (outcome.ending, outcome.usage, outcome.broken) == (Ending.FAILED, usage, broken)

    run(story())


def test_what_one_attempt_has_used_is_not_the_next_ones() -> None:
    async def story() -> None:
        async with scene(STREAMED, providers=2) as stage:
            stage.provider.always = (stream(ROLE, USAGE) + END,)
            stage.providers[1].refusals = [UpstreamConnectError("no")]
            stage.begin()
            outcome = await stage.outcome()
            assert (outcome.usage, outcome.unsent) == (None, True)

    run(story())


def test_the_text_of_an_answer_that_is_cut_is_counted() -> None:
    async def story() -> None:
        async with scene(STREAMED) as stage:
            await stage.asked()
            stage.provider.line.says(stream(ROLE, TEXT, TEXT))
            await turns()
            assert stage.transfer.text_bytes == -1
            await stage.leave()
            assert stage.transfer.text_bytes == 2 * len("Hello")

    run(story())
