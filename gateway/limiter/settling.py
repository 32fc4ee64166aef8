"""What a request is charged in the end, by how it ended: one table, for every ending.

    ending                                    charged
    no byte went to a provider                nothing, the request included
    complete, usage told                      the usage
    complete, no usage told                   the reservation; for a provider's refusal the request alone
    failed                                    the usage if told; after a timeout the reservation; else the request alone
    truncated                                 the most of usage and meter; without a meter the reservation
    abandoned, streamed                       likewise; the caller of `charge` lets the meter say at least the prompt
                                              and what peers who left had used
    abandoned, not streamed, or reasoning     the most of usage and reservation
    unseen

The provider has worked on what timed out, so a caller who makes it do so is charged; what a provider refused, or broke
off before any content, costs the caller the request. Usage of an answer that broke off may be only its beginning (some
providers tell the prompt first), so the meter can outrank it.

Invariants: every ending has a row; a charge is never less than the usage a provider has told. Left out: what the meter
and the peers say (`estimate.py`), what usage costs (`ledger/`), and that it is applied once (the engines).
"""

from typing import Final

from gateway.limiter.use import NOTHING, REQUEST, Use, most
from gateway.record import Ending, Outcome

_ERROR: Final = 400
_TIMEOUT: Final = "upstream_timeout"
_ENDED_EARLY: Final = (Ending.ABANDONED, Ending.TRUNCATED)  # no set: an enum's hash is made in Python


def charge(
    outcome: Outcome,
    reserved: Use,
    usage: Use | None,
    metered: Use | None = None,
    *,
    unseen: bool = False,
) -> Use:
    """What to settle.

    `usage` is what the provider has told, `metered` what passed through as the gateway counts it (None: not known);
    `unseen` says that the model reasons without showing it.
    """
    if not outcome.upstream_bytes:
        return NOTHING
    if outcome.ending in _ENDED_EARLY:
        return _cut_short(outcome, reserved, usage, metered, unseen=unseen)
    if usage is not None:
        return usage
    if outcome.ending is Ending.COMPLETE:
        return reserved if outcome.status < _ERROR else REQUEST
    return reserved if _timed_out(outcome) else REQUEST


def attempt_charge(cause: str, usage: Use | None, reserved: Use, *, sent: bool) -> Use:
    """What an attempt that failed, and is followed by another, is charged at its provider's own limits."""
    if usage is not None:
        return usage
    if not sent:
        return NOTHING
    return reserved if cause == _TIMEOUT else REQUEST


def _cut_short(outcome: Outcome, reserved: Use, usage: Use | None, metered: Use | None, *, unseen: bool) -> Use:
    hidden = outcome.ending is Ending.ABANDONED and (unseen or not outcome.streamed)
    counted = reserved if metered is None or hidden else metered
    return counted if usage is None else most(usage, counted)


def _timed_out(outcome: Outcome) -> bool:
    return bool(outcome.attempts) and outcome.attempts[-1].cause == _TIMEOUT
