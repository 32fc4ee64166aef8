"""A hold is ended once, by whoever comes first, with what its request used of each bucket."""

from collections.abc import Sequence
from typing import Any

import pytest

from gateway.config.limits import Rule, RuleMatch
from gateway.limiter.engine import Amount
from gateway.limiter.lines import Lines
from gateway.limiter.reservation import Hold, Origin
from gateway.limiter.use import NOTHING, REQUEST, Use, use
from gateway.record import Attempt, Ending, Outcome
from tests.fakes.limits import START_MS, estimate, limits_of, run

OWN = (Rule(name="rpm", requests=10, every="minute"), Rule(name="tpm", tokens=1_000, every="minute"))
AT = (
    Rule(name="at", per=("provider",), tokens=500, every="minute"),
    Rule(name="one", match=RuleMatch(provider="p1"), in_flight=5),
)
RPM, TPM = "rpm|rate=10000/60000", "tpm|rate=1000000/60000"
AT_P1, AT_P2 = "at|provider=p1|rate=500000/60000", "at|provider=p2|rate=500000/60000"


class FakeKeeper:
    """Remembers what it is told; `admits` answers `extend`."""

    def __init__(self, *, admits: bool = True) -> None:
        self.settled: list[dict[str, int]] = []
        self.extended: list[tuple[dict[str, int], dict[str, int]]] = []
        self.admits = admits

    def settle(self, hold: Hold, actuals: Sequence[Amount]) -> None:
        assert hold.settled
        self.settled.append(by_rule(actuals))

    async def extend(self, hold: Hold, lines: Lines, takes: list[Amount], releases: list[Amount]) -> bool:
        assert lines is not hold.lines
        self.extended.append((by_rule(takes), by_rule(releases)))
        return self.admits

    def wall_ms(self) -> int:
        return START_MS


def by_rule(amounts: Sequence[Amount]) -> dict[str, int]:
    return {amount.bucket: amount.amount for amount in amounts}


def made(keeper: FakeKeeper, *rules: Rule, tokens: tuple[int, int] = (100, 300), **said: Any) -> Hold:
    limits, wanted = limits_of(*rules), estimate(*tokens)
    lines = limits.lines(START_MS, provider=said.get("provider", ""))
    hold = Hold(keeper, "h", limits, lines, wanted, Origin.TABLE)
    hold.takes = lines.takes(wanted)
    return hold


def test_what_was_used_is_settled_once() -> None:
    keeper = FakeKeeper()
    hold = made(keeper, *OWN)
    hold.settle(use(100, 50))
    hold.settle(use(1, 1))
    hold.leave(5)
    assert keeper.settled == [{"rpm": 1_000, "tpm": 150_000}]


def test_a_reservation_that_is_charged_charges_no_more_than_it_took() -> None:
    """All of a limit was taken for an answer that may be larger: leaving it at that is not a debt."""
    keeper = FakeKeeper()
    hold = made(keeper, *OWN, tokens=(100, 128_000))
    hold.leave(7)
    assert keeper.settled == [{"rpm": 1_000, "tpm": 1_000_000}]


def test_neither_does_one_whose_first_attempt_failed() -> None:
    keeper = FakeKeeper()
    hold = made(keeper, *OWN, tokens=(100, 128_000))
    assert run(hold.extend("p2", REQUEST))
    hold.leave(7)
    assert keeper.settled == [{"rpm": 1_000, "tpm": 1_000_000}]


LEFT = Outcome(Ending.ABANDONED, 200, (Attempt("p/m", "caller_gone"),), streamed=True, upstream_bytes=9)


@pytest.mark.parametrize(
    ("failed", "usage", "tokens"), [(REQUEST, None, 1_000), (use(0, 7), None, 1_007), (None, use(100, 7), 1_000)]
)
def test_what_is_charged_for_want_of_better_is_never_more_than_was_taken(
    failed: Use | None, usage: Use | None, tokens: int
) -> None:
    """A caller may ask for answers a thousand times as long as a limit has room for; that must not be a debt."""
    keeper = FakeKeeper()
    hold = made(keeper, *OWN, tokens=(100, 10**7))
    if failed is not None:
        assert run(hold.extend("p2", failed, failed if failed.tokens else None))
    hold.finish(LEFT, usage, usage, unseen=True)
    assert keeper.settled == [{"rpm": 1_000, "tpm": tokens * 1_000}]


def test_what_is_certain_is_charged_though_less_was_taken() -> None:
    keeper = FakeKeeper()
    hold = made(keeper, *OWN, tokens=(100, 10**7))
    hold.finish(LEFT, use(100, 2_000), use(100, 1_500), unseen=True)
    assert keeper.settled == [{"rpm": 1_000, "tpm": 2_100_000}]


def test_what_passed_is_certain_though_the_reservation_is_charged() -> None:
    """Else whoever asks for more than a limit has would be sent more than it has, too, by leaving at the end."""
    keeper = FakeKeeper()
    hold = made(keeper, *OWN, tokens=(100, 10**7))
    hold.finish(LEFT, None, use(100, 1_500), unseen=True)
    assert keeper.settled == [{"rpm": 1_000, "tpm": 1_600_000}]


def test_a_provider_that_timed_out_is_charged_no_more_than_was_taken_there() -> None:
    keeper = FakeKeeper()
    hold = made(keeper, *OWN, *AT, provider="p1", tokens=(100, 10**7))
    assert run(hold.extend("p2", hold.reserved.full))
    hold.finish(Outcome(Ending.COMPLETE, 200, upstream_bytes=9), use(10, 5))
    assert keeper.settled == [
        {"rpm": 1_000, "tpm": 15_000, "at|provider=p2": 15_000, "at|provider=p1": 500_000, "one": 1}
    ]


def test_a_request_of_which_nothing_was_sent_gets_all_of_it_back() -> None:
    keeper = FakeKeeper()
    made(keeper, *OWN).leave(0)
    assert keeper.settled == [{"rpm": 0, "tpm": 0}]


ENDINGS = [
    (Outcome(Ending.COMPLETE, 200, upstream_bytes=9), use(10, 5), {"rpm": 1_000, "tpm": 15_000}),
    (Outcome(Ending.COMPLETE, 200, upstream_bytes=9), None, {"rpm": 1_000, "tpm": 400_000}),
    (
        Outcome(Ending.FAILED, 502, (Attempt("p/m", "upstream_status"),), upstream_bytes=9),
        None,
        {"rpm": 1_000, "tpm": 0},
    ),
]


@pytest.mark.parametrize(("outcome", "usage", "settled"), ENDINGS)
def test_the_ending_decides(outcome: Outcome, usage: Use | None, settled: dict[str, int]) -> None:
    keeper = FakeKeeper()
    made(keeper, *OWN).finish(outcome, usage)
    assert keeper.settled == [settled]


def test_what_is_reserved_is_told_for_the_record() -> None:
    hold = made(FakeKeeper(), *OWN)
    assert hold.amounts == {RPM: 1_000, TPM: 400_000}
    assert hold.settled_amounts == {}
    hold.settle(use(1, 1))
    assert hold.settled_amounts == {RPM: 1_000, TPM: 2_000}


# --- further attempts -----------------------------------------------------------------------------------------------


def test_another_attempt_changes_nothing_where_no_limit_asks_for_the_provider() -> None:
    keeper = FakeKeeper()
    hold = made(keeper, *OWN)
    assert run(hold.extend("p2", REQUEST))
    assert keeper.extended == []


def test_another_attempt_exchanges_the_buckets_of_the_provider() -> None:
    keeper = FakeKeeper()
    hold = made(keeper, *OWN, *AT, provider="p1")
    assert hold.amounts == {RPM: 1_000, TPM: 400_000, AT_P1: 400_000}
    assert run(hold.extend("p2", REQUEST))
    assert keeper.extended == [({"at|provider=p2": 400_000}, {"at|provider=p1": 0, "one": 0})]
    assert hold.attempt == 1
    assert hold.amounts == {RPM: 1_000, TPM: 400_000, AT_P2: 400_000}
    hold.settle(use(10, 5))
    assert keeper.settled == [{"rpm": 1_000, "tpm": 15_000, "at|provider=p2": 15_000, "at|provider=p1": 0, "one": 1}]


def test_a_provider_that_refuses_leaves_the_hold_as_it_was() -> None:
    keeper = FakeKeeper(admits=False)
    hold = made(keeper, *OWN, *AT, provider="p1")
    assert not run(hold.extend("p2"))
    assert AT_P1 in hold.amounts
    assert hold.attempt == 0


def test_a_failure_counts_once_however_many_providers_refuse() -> None:
    """And a provider whose answer to the exchange was lost may have been charged: it is named, with nothing."""
    keeper = FakeKeeper(admits=False)
    hold = made(keeper, *OWN, *AT, provider="p1")
    for provider in ("p2", "p3"):
        assert not run(hold.extend(provider, use(0, 7), use(0, 7)))
    hold.finish(Outcome(Ending.FAILED, 502, (Attempt("p1/m", "upstream_reset"),), upstream_bytes=9), use(0, 7))
    assert keeper.settled == [
        {
            "rpm": 1_000,
            "tpm": 7_000,
            "at|provider=p1": 7_000,
            "one": 1,
            "at|provider=p2": 0,
            "at|provider=p3": 0,
        }
    ]


def test_a_provider_that_never_has_room_for_the_prompt_refuses() -> None:
    keeper = FakeKeeper()
    hold = made(keeper, *OWN, Rule(name="small", match=RuleMatch(provider="p2"), tokens=5, every="minute"))
    assert not run(hold.extend("p2"))
    assert keeper.extended == []


def test_a_provider_without_limits_needs_no_question_unless_the_last_had_some() -> None:
    keeper = FakeKeeper()
    hold = made(keeper, *OWN, AT[1], provider="p1")
    assert run(hold.extend("p2"))
    assert run(hold.extend("p3"))
    assert keeper.extended == [({}, {"one": 0})]
    assert hold.attempt == 2


def test_the_caller_pays_for_what_every_attempt_is_known_to_have_used() -> None:
    keeper = FakeKeeper()
    hold = made(keeper, *OWN, *AT, provider="p1")
    assert run(hold.extend("p2", use(100, 20), use(100, 20)))
    assert keeper.extended[0][1] == {"at|provider=p1": 0, "one": 0}
    assert run(hold.extend("p1", use(0, 1)))
    hold.settle(use(10, 5))
    assert keeper.settled == [
        {"rpm": 1_000, "tpm": 135_000, "at|provider=p1": 135_000, "one": 2, "at|provider=p2": 1_000}
    ]
    assert hold.settled_amounts == {RPM: 1_000, TPM: 135_000, AT_P1: 135_000, AT_P2: 1_000}


def test_a_last_attempt_that_nothing_was_sent_to_costs_its_provider_nothing() -> None:
    keeper = FakeKeeper()
    hold = made(keeper, *OWN, *AT, provider="p1")
    assert run(hold.extend("p2", REQUEST))
    causes = (Attempt("p1/m", "upstream_status"), Attempt("p2/m", "upstream_connect_error"))
    hold.finish(Outcome(Ending.FAILED, 502, causes, upstream_bytes=9, unsent=True))
    assert keeper.settled == [{"rpm": 1_000, "tpm": 0, "at|provider=p2": 0, "at|provider=p1": 0, "one": 1}]


def test_a_last_attempt_that_did_nothing_costs_its_provider_nothing() -> None:
    keeper = FakeKeeper()
    hold = made(keeper, *OWN, *AT, provider="p1")
    hold.settle(REQUEST, NOTHING)
    assert keeper.settled == [{"rpm": 1_000, "tpm": 0, "at|provider=p1": 0, "one": 0}]


def test_headers_tell_how_things_stood_when_it_was_reserved() -> None:
    hold = made(FakeKeeper(), *OWN, *AT, provider="p1")
    assert hold.header_lines("openai") == b""
    hold.levels = (9_000, 600_000, 100_000, 4)
    told = hold.header_lines("openai")
    assert b"x-ratelimit-remaining-requests: 9\r\n" in told
    assert b"x-ratelimit-remaining-tokens: 100\r\n" in told
    assert run(hold.extend("p3"))
    assert hold.header_lines("openai") == told
