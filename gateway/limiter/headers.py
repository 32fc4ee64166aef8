"""What a limited caller is told with every answer: of each resource the tightest limit, in the caller's dialect.

The tightest limit is the one of which the least is left; of equals, the one that is full again last. Levels are those
that RESERVE returned, so a header says how things stood when the request was admitted or refused. Shadow limits, money
and slots have no header.

Pure: the time is an argument. Left out: `retry-after`, which is the error's (`errors.RateLimited`).
"""

from gateway.dialects.quota import Quota, header_lines
from gateway.limiter.lines import Lines


def limit_headers(lines: Lines, levels: tuple[int, ...], wall_ms: int, dialect: str) -> bytes:
    """Header lines ready to be sent, b"" where there is nothing to tell. `levels` () is not known."""
    return header_lines(dialect, quotas(lines, levels, wall_ms), wall_ms) if levels else b""


def quotas(lines: Lines, levels: tuple[int, ...], wall_ms: int) -> list[Quota]:
    """The tightest limit of each resource."""
    found = []
    for kind, told in lines.families:
        tightest: Quota | None = None
        for index, unit, shown, limit, amount, period_ms, end_ms in told:
            level = levels[index]
            left = level // unit if level > 0 else 0
            reset_ms = -((level - limit) * period_ms // amount) if amount else max(end_ms - wall_ms, 0)
            if tightest is None or left < tightest[2] or (left == tightest[2] and reset_ms > tightest[3]):
                tightest = (kind, shown, left, reset_ms)
        if tightest is not None:
            found.append(tightest)
    return found
