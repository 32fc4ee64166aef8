"""What a request is charged in the end, by how it ended: one table, for every ending.

    how an attempt ended                      it is charged
    nothing of the request was sent           nothing
    complete, usage told                      the usage
    complete, no usage told                   the reservation; for a provider's refusal the request alone
    failed, usage told                        the usage
    failed within a whole answer              the most of usage and reservation
    failed, timed out                         the reservation
    failed, anything else                     the request alone
    truncated                                 the most of usage and meter; without a meter the reservation
    left by the caller, streamed              likewise; the caller of `charge` lets the meter say at least the prompt
                                              and what peers who left had used
    left, not streamed, or reasoning unseen   the most of usage, meter and reservation

A request is charged what its last attempt is, and the request itself if anything of it was sent to anybody; what
attempts before have told of their usage comes on top (`reservation.py`), and each provider is charged for its own
attempt. A caller who leaves while one attempt has failed and the next has not begun leaves it at the failed one.

The provider has worked on what timed out, so a caller who makes it do so is charged, and on what it began to answer;
what a provider refused, or broke off before any content, costs the caller the request. Usage of an answer that broke
off may be only its beginning (some providers tell the prompt first), so the meter can outrank it.

Invariants: every ending has a row; a charge is never less than the usage a provider has told. Left out: what the meter
and the peers say (`estimate.py`), what usage costs (`ledger/`), and that it is applied once (the engines).
"""

from typing import Final

from gateway.errors import UpstreamTimeout
from gateway.limiter.use import NOTHING, REQUEST, Use, most
from gateway.record import CALLER_GONE, SLOW_READER, Ending, Outcome

_ERROR: Final = 400
_COMPLETE: Final = Ending.COMPLETE  # a global is found faster than an enum's member
_TRUNCATED: Final = Ending.TRUNCATED
_ABANDONED: Final = Ending.ABANDONED
_LEFT: Final = (CALLER_GONE, SLOW_READER)


def charge(
    outcome: Outcome,
    reserved: Use,
    usage: Use | None,
    metered: Use | None = None,
    *,
    unseen: bool = False,
) -> Use:
    """What the last attempt of an outcome is charged: at its provider, and to the request.

    `usage` is what the provider has told, `metered` what passed through as the gateway counts it (None: not known);
    `unseen` says that the model reasons without showing it.
    """
    if outcome.unsent or not outcome.upstream_bytes:
        return NOTHING
    if outcome.ending is _COMPLETE:
        if usage is not None:
            return usage
        return reserved if outcome.status < _ERROR else REQUEST
    if _is_cut(outcome):
        hidden = outcome.ending is _ABANDONED and (unseen or not outcome.streamed)
        counted = reserved if metered is None else most(metered, reserved) if hidden else metered
        return counted if usage is None else most(usage, counted)
    if usage is not None:
        return usage
    return reserved if outcome.attempts[-1].cause == UpstreamTimeout.code else REQUEST


def request_charge(outcome: Outcome, attempt: Use) -> Use:
    """What a request is charged whose last attempt is charged so: no less than itself, once any of it was sent."""
    return REQUEST if attempt is NOTHING and outcome.upstream_bytes else attempt


def _is_cut(outcome: Outcome) -> bool:
    """Whether the last attempt ended with its answer under way, so that what passed of it matters."""
    if outcome.ending is _ABANDONED:
        return bool(outcome.attempts) and outcome.attempts[-1].cause in _LEFT
    return outcome.ending is _TRUNCATED or outcome.broken
