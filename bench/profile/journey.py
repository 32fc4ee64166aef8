"""Which stage of a request's journey a sample belongs to: the pipeline's numbers, in the pipeline's order.

The innermost frame that stands for a stage decides, so that what stages share (reading JSON, the limiter's arithmetic,
a library) counts for the one that asked for it. What is called by the loop on behalf of many requests, such as the one
write of a turn's journal lines, has no such frame and goes by its package.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.profile.stacks import LOOP, Frame, Stack, owner

LISTEN: Final = "1 listen: connections, heads, bodies"
IDENTIFY: Final = "2 identify: the key"
ROUTE: Final = "3 route: what is asked, model, targets"
RESERVE: Final = "6 reserve: estimate, limits"
DECISION: Final = "9 record: the decision, before anything is sent"
RELAY: Final = "7 relay: to the provider and from it, usage"
ANSWER: Final = "7 relay: the answer to the caller"
SETTLE: Final = "8 settle: cost, limits"
OUTCOME: Final = "9 record: the outcome"
METRICS: Final = "9 record: metrics, log, trace"
WRITTEN: Final = "9 record: journal lines written, once a turn"
BETWEEN: Final = "the pipeline itself"
LIMITER: Final = "leases of limits, once in a while"
REST: Final = "the rest of the gateway"

JOURNEY: Final = (
    LISTEN,
    IDENTIFY,
    ROUTE,
    RESERVE,
    DECISION,
    RELAY,
    ANSWER,
    SETTLE,
    OUTCOME,
    METRICS,
    WRITTEN,
    BETWEEN,
    LIMITER,
    REST,
    LOOP,
)
"""In the order of the report: as a request meets them, though the decision's number is that of recording."""


@dataclass(frozen=True)
class Mark:
    """Frames that stand for a stage: those of these functions, or all, in files that begin with `path`."""

    stage: str
    path: str
    functions: Sequence[str] = ()

    def holds(self, frame: Frame) -> bool:
        """Whether it is one of them."""
        return frame.inside.startswith(self.path) and (not self.functions or frame.function in self.functions)


_ROUTING: Final = ("_read", "_read_aside", "_decode", "_prepare", "_plan", "_form", "_passthrough", "_outgoing")
MARKS: Final = (
    Mark(IDENTIFY, "pipeline.py", ["identify"]),
    Mark(IDENTIFY, "identity/"),
    Mark(ROUTE, "pipeline.py", _ROUTING),
    Mark(RESERVE, "pipeline.py", ["_reserve", "_measured_aside", "_admit"]),
    Mark(DECISION, "pipeline.py", ["_decide"]),
    Mark(SETTLE, "pipeline.py", ["_settle"]),
    Mark(SETTLE, "spending.py", ["price_of"]),
    Mark(OUTCOME, "pipeline.py", ["finish"]),
    Mark(BETWEEN, "pipeline.py"),
    Mark(METRICS, "telemetry/"),
    Mark(ANSWER, "listener/respond.py"),
    Mark(ANSWER, "listener/connection.py", ["DownstreamConnection.write"]),
    Mark(LISTEN, "listener/"),
    Mark(RELAY, "relay/"),
)
"""The first that holds for a frame."""
PACKAGES: Final = (
    Mark(WRITTEN, "journal/"),
    Mark(LIMITER, "limiter/"),
    Mark(LOOP, "process/"),
    Mark(REST, ""),
)


def stage(stack: Stack) -> str:
    """To which stage its samples belong."""
    marked = (mark.stage for frame in reversed(stack.frames) if frame.inside for mark in MARKS if mark.holds(frame))
    return next(marked, None) or _package(owner(stack))


def _package(own: Frame | None) -> str:
    return next(mark.stage for mark in PACKAGES if mark.holds(own)) if own else LOOP
