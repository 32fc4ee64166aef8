"""What a limited caller is told with every answer: of each resource the tightest limit, in the caller's dialect.

The tightest limit is the one of which the least is left; of equals, the one that is full again last. Levels are those
that RESERVE returned, so a header says how things stood when the request was admitted or refused. Shadow limits, money
and slots have no header.

Pure: the time is an argument. Left out: `retry-after`, which is the error's (`errors.RateLimited`).
"""

from gateway.dialects.quota import Quota, header_lines
from gateway.limiter.lines import Lines, Told


def limit_headers(lines: Lines, levels: tuple[int, ...], wall_ms: int, dialect: str) -> bytes:
    """Header lines ready to be sent, b"" where there is nothing to tell. `levels` () is not known."""
    return header_lines(dialect, quotas(lines, levels, wall_ms), wall_ms) if levels else b""


def quotas(lines: Lines, levels: tuple[int, ...], wall_ms: int) -> list[Quota]:
    """The tightest limit of each resource."""
    found = []
    for kind, told in lines.families:
        remaining, reset_ms, limit = _left(told[0], levels, wall_ms)
        for other in told[1:]:
            left, later_ms, other_limit = _left(other, levels, wall_ms)
            if left < remaining or (left == remaining and later_ms > reset_ms):
                remaining, reset_ms, limit = left, later_ms, other_limit
        found.append((kind, limit, remaining, reset_ms))
    return found


def _left(told: Told, levels: tuple[int, ...], wall_ms: int) -> tuple[int, int, int]:
    """What is left, in how many ms all of it is, and how much that would be."""
    index, unit, shown, limit, amount, period_ms, end_ms = told
    level = levels[index]
    reset_ms = -((level - limit) * period_ms // amount) if amount else max(end_ms - wall_ms, 0)
    return (level // unit if level > 0 else 0, reset_ms, shown)
