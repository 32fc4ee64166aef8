"""Every ending, with and without usage: what it is charged."""

from typing import Any

import pytest

from gateway.limiter.settling import charge, request_charge
from gateway.limiter.use import NOTHING, REQUEST, Use, most, use
from gateway.record import Attempt, Ending, Outcome

RESERVED, USAGE, METERED = use(100, 900, 50), use(90, 40, 5), use(100, 60, 7)
PARTLY = use(110, 1, 1)


def ended(ending: Ending, status: int = 200, cause: str = "ok", **said: Any) -> Outcome:
    return Outcome(ending, status, (Attempt("p/m", cause),), **{"streamed": True, "upstream_bytes": 10, **said})


WHOLE, FAILED, CUT, LEFT = Ending.COMPLETE, Ending.FAILED, Ending.TRUNCATED, Ending.ABANDONED
GONE = ended(LEFT, cause="caller_gone")
CASES = {
    "complete, usage told": (ended(WHOLE), USAGE, None, USAGE),
    "complete, with more than was reserved": (ended(WHOLE), use(200, 9000, 99), None, use(200, 9000, 99)),
    "complete, no usage told": (ended(WHOLE), None, None, RESERVED),
    "refused by the provider": (ended(WHOLE, 400, "status_400"), None, None, REQUEST),
    "refused by the provider, usage told": (ended(WHOLE, 400, "status_400"), USAGE, None, USAGE),
    "failed": (ended(FAILED, 503, "upstream_status"), None, None, REQUEST),
    "failed, usage told": (ended(FAILED, 503, "upstream_status"), USAGE, None, USAGE),
    "failed, broken off before any content": (ended(FAILED, 502, "upstream_reset"), None, None, REQUEST),
    "failed in an answer, nothing told": (ended(FAILED, 502, "upstream_reset", broken=True), None, None, RESERVED),
    "failed in an answer, metered": (ended(FAILED, 502, "upstream_reset", broken=True), None, METERED, METERED),
    "failed in an answer, usage told": (
        ended(FAILED, 502, "upstream_reset", broken=True),
        PARTLY,
        METERED,
        use(110, 60, 7),
    ),
    "timed out": (ended(FAILED, 504, "upstream_timeout"), None, None, RESERVED),
    "timed out, usage told": (ended(FAILED, 504, "upstream_timeout"), USAGE, None, USAGE),
    "not reached": (ended(FAILED, 502, "upstream_connect_error", upstream_bytes=0), None, None, NOTHING),
    "not reached, others were": (ended(FAILED, 502, "upstream_connect_error", unsent=True), None, None, NOTHING),
    "refused by the gateway": (ended(Ending.REFUSED, 503, upstream_bytes=0), None, None, NOTHING),
    "cut": (ended(CUT), None, None, RESERVED),
    "cut, metered": (ended(CUT), None, METERED, METERED),
    "cut, usage told": (ended(CUT), PARTLY, METERED, use(110, 60, 7)),
    "cut, usage told and nothing metered": (ended(CUT), PARTLY, None, use(110, 900, 50)),
    "left, metered": (GONE, None, METERED, METERED),
    "left, usage told": (GONE, PARTLY, METERED, use(110, 60, 7)),
    "left, nothing told": (GONE, None, None, RESERVED),
    "left for not reading": (ended(LEFT, cause="slow_reader"), None, METERED, METERED),
    "left, no stream": (ended(LEFT, cause="caller_gone", streamed=False), None, None, RESERVED),
    "left before anything was sent": (ended(LEFT, 0, "caller_gone", upstream_bytes=0), None, METERED, NOTHING),
    "left between attempts": (ended(LEFT, 0, "upstream_status"), None, METERED, REQUEST),
    "left between attempts, usage told": (ended(LEFT, 0, "upstream_status"), USAGE, METERED, USAGE),
    "left between attempts, after a time-out": (ended(LEFT, 0, "upstream_timeout"), None, METERED, RESERVED),
    "left while the next was connected": (ended(LEFT, 0, "upstream_status", unsent=True), None, METERED, NOTHING),
    "left before any attempt": (Outcome(LEFT, 0), None, None, NOTHING),
}


@pytest.mark.parametrize(("outcome", "usage", "metered", "expected"), CASES.values(), ids=CASES.keys())
def test_every_ending_is_charged(outcome: Outcome, usage: Use | None, metered: Use | None, expected: Use) -> None:
    assert charge(outcome, RESERVED, usage, metered) == expected


@pytest.mark.parametrize(
    ("outcome", "attempt", "request_"),
    [
        (ended(WHOLE), USAGE, USAGE),
        (ended(FAILED, cause="upstream_connect_error", unsent=True), NOTHING, REQUEST),  # others have heard of it
        (ended(FAILED, cause="upstream_connect_error", upstream_bytes=0), NOTHING, NOTHING),
    ],
)
def test_a_request_of_which_anything_was_sent_is_one(outcome: Outcome, attempt: Use, request_: Use) -> None:
    assert request_charge(outcome, attempt) == request_


@pytest.mark.parametrize("ending", list(Ending))
@pytest.mark.parametrize("usage", [None, USAGE])
@pytest.mark.parametrize("metered", [None, METERED])
def test_no_ending_is_without_a_charge_nor_below_known_usage(
    ending: Ending, usage: Use | None, metered: Use | None
) -> None:
    charged = charge(ended(ending), RESERVED, usage, metered)
    assert charged.requests == 1
    assert usage is None or all(had >= told for had, told in zip(charged, usage, strict=True))


def test_what_was_seen_is_not_all_where_reasoning_is_not() -> None:
    assert charge(GONE, RESERVED, None, METERED, unseen=True) == most(METERED, RESERVED)
    assert charge(GONE, RESERVED, None, use(100, 9_000, 99), unseen=True) == use(100, 9_000, 99)
    assert charge(ended(CUT), RESERVED, None, METERED, unseen=True) == METERED  # the provider broke off


def test_a_reservation_that_is_charged_is_the_very_one() -> None:
    """By which the hold knows that nothing but what was taken is owed."""
    assert charge(ended(WHOLE), RESERVED, None) is RESERVED
