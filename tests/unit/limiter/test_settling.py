"""Every ending, with and without usage: what it is charged."""

import pytest

from gateway.limiter.settling import attempt_charge, charge
from gateway.limiter.use import NOTHING, REQUEST, Use, use
from gateway.record import Attempt, Ending, Outcome

RESERVED, USAGE, METERED = use(100, 900, 50), use(90, 40, 5), use(100, 60, 7)
PARTLY = use(110, 1, 1)


def ended(ending: Ending, status: int = 200, cause: str = "ok", *, streamed: bool = True, sent: int = 10) -> Outcome:
    return Outcome(ending, status, (Attempt("p/m", cause),), streamed=streamed, upstream_bytes=sent)


WHOLE, FAILED, CUT, LEFT = Ending.COMPLETE, Ending.FAILED, Ending.TRUNCATED, Ending.ABANDONED
CASES = [
    (ended(WHOLE), USAGE, None, USAGE),
    (ended(WHOLE), use(200, 9000, 99), None, use(200, 9000, 99)),  # more than was reserved
    (ended(WHOLE), None, None, RESERVED),
    (ended(WHOLE, 400), None, None, REQUEST),  # the provider refused it
    (ended(WHOLE, 400), USAGE, None, USAGE),
    (ended(FAILED, 503, "upstream_status"), None, None, REQUEST),
    (ended(FAILED, 502, "upstream_reset"), None, None, REQUEST),
    (ended(FAILED, 504, "upstream_timeout"), None, None, RESERVED),
    (ended(FAILED, 504, "upstream_timeout"), USAGE, None, USAGE),
    (ended(FAILED, 502, "upstream_connect_error", sent=0), None, None, NOTHING),
    (ended(Ending.REFUSED, 503, sent=0), None, None, NOTHING),
    (ended(CUT), None, None, RESERVED),
    (ended(CUT), None, METERED, METERED),
    (ended(CUT), PARTLY, METERED, use(110, 60, 7)),
    (ended(CUT), PARTLY, None, use(110, 900, 50)),
    (ended(LEFT), None, METERED, METERED),
    (ended(LEFT), PARTLY, METERED, use(110, 60, 7)),
    (ended(LEFT), None, None, RESERVED),
    (ended(LEFT, streamed=False), None, METERED, RESERVED),
    (ended(LEFT, 0, sent=0), None, METERED, NOTHING),
]


@pytest.mark.parametrize(("outcome", "usage", "metered", "expected"), CASES)
def test_every_ending_is_charged(outcome: Outcome, usage: Use | None, metered: Use | None, expected: Use) -> None:
    assert charge(outcome, RESERVED, usage, metered) == expected


@pytest.mark.parametrize("ending", list(Ending))
@pytest.mark.parametrize("usage", [None, USAGE])
@pytest.mark.parametrize("metered", [None, METERED])
def test_no_ending_is_without_a_charge_nor_below_known_usage(
    ending: Ending, usage: Use | None, metered: Use | None
) -> None:
    charged = charge(ended(ending), RESERVED, usage, metered)
    assert charged.requests == 1
    assert usage is None or all(had >= told for had, told in zip(charged, usage, strict=True))


def test_reasoning_that_was_not_seen_is_not_metered() -> None:
    assert charge(ended(LEFT), RESERVED, None, METERED, unseen=True) == RESERVED
    assert charge(ended(CUT), RESERVED, None, METERED, unseen=True) == METERED  # the provider broke off


def test_a_reservation_that_is_charged_is_the_very_one() -> None:
    """By which the hold knows that nothing but what was taken is owed."""
    assert charge(ended(WHOLE), RESERVED, None) is RESERVED


@pytest.mark.parametrize(
    ("cause", "usage", "sent", "expected"),
    [
        ("upstream_connect_error", None, False, NOTHING),
        ("upstream_status", None, True, REQUEST),
        ("upstream_timeout", None, True, RESERVED),
        ("upstream_timeout", None, False, NOTHING),
        ("upstream_error_in_stream", USAGE, True, USAGE),
    ],
)
def test_an_attempt_that_another_follows(cause: str, usage: Use | None, sent: bool, expected: Use) -> None:
    assert attempt_charge(cause, usage, RESERVED, sent=sent) == expected
