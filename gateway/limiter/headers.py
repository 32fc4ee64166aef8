"""What a limited caller is told with every answer: of each resource the tightest limit, in the caller's dialect.

The tightest limit is the one of which the least is left; of equals, the one that is full again last. Levels are those
that RESERVE returned, so a header says how things stood when the request was admitted or refused. Shadow limits, money
and slots have no header.

Pure: the time is an argument. Left out: `retry-after`, which is the error's (`errors.RateLimited`).
"""

from typing import Final

from gateway.dialects.quota import Quota, header_lines
from gateway.limiter.lines import Line, Lines
from gateway.limiter.spec import Kind
from gateway.limiter.use import Resource

_KINDS: Final = {
    Resource.REQUESTS: "requests",
    Resource.TOKENS: "tokens",
    Resource.INPUT_TOKENS: "input-tokens",
    Resource.OUTPUT_TOKENS: "output-tokens",
}


def limit_headers(lines: Lines, levels: tuple[int, ...], dialect: str, wall_ms: int) -> bytes:
    """Header lines ready to be sent, b"" where there is nothing to tell. `levels` () is not known."""
    return header_lines(dialect, quotas(lines, levels, wall_ms), wall_ms) if levels else b""


def quotas(lines: Lines, levels: tuple[int, ...], wall_ms: int) -> list[Quota]:
    """The tightest limit of each resource."""
    return [
        _tightest(_KINDS[resource], [_quota(lines.lines[index], levels[index], wall_ms) for index in indexes])
        for resource, indexes in lines.families
    ]


def _tightest(kind: str, told: list[tuple[int, int, int]]) -> Quota:
    remaining, reset_ms, limit = told[0] if len(told) == 1 else min(told, key=lambda one: (one[0], -one[1]))
    return Quota(kind, limit, remaining, reset_ms)


def _quota(line: Line, level: int, wall_ms: int) -> tuple[int, int, int]:
    """What is left, in how many ms all of it is, and how much that would be."""
    spec, unit = line.spec, line.unit
    if spec.kind is Kind.WINDOW:
        reset_ms = max(spec.end_ms - wall_ms, 0)
    else:
        reset_ms = -((level - spec.limit) * spec.period_ms // spec.amount)
    return (level // unit if level > 0 else 0, reset_ms, spec.limit // unit)
