"""How each dialect says what is left of a limit: header lines on every answer of a limited key.

OpenAI has two families (requests, tokens) of three headers and tells the reset as a duration; Anthropic has four
(requests, tokens, input and output tokens) and tells it as a moment. Sources: "Rate limits in headers" of OpenAI's
rate limit guide, "Response headers" of Anthropic's. Other dialects have no words of their own and use OpenAI's.

Left out: which limit is told where several apply (`limiter/headers.py`).
"""

import datetime as dt
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final, NamedTuple

_MS_PER_S: Final = 1000
_S_PER_MINUTE: Final = 60
_TEMPLATES: Final = 4096  # one for each limit of the config that was told


class Quota(NamedTuple):
    """One family: `kind` is requests, tokens, input-tokens or output-tokens; `reset_ms` until all of it is back."""

    kind: str
    limit: int
    remaining: int
    reset_ms: int


def header_lines(dialect: str, quotas: Iterable[Quota], wall_ms: int) -> bytes:
    """The header lines, each with its line end; b"" for none."""
    return _SPELLINGS.get(dialect, _openai)(quotas, wall_ms)


def _openai(quotas: Iterable[Quota], _wall_ms: int) -> bytes:
    return b"".join(
        [
            _openai_template(kind, limit) % (remaining, duration(reset_ms))
            for kind, limit, remaining, reset_ms in quotas
            if kind in _OPENAI_KINDS
        ]
    )


def _anthropic(quotas: Iterable[Quota], wall_ms: int) -> bytes:
    return b"".join(
        [
            _anthropic_template(kind, limit) % (remaining, moment(-(-(wall_ms + reset_ms) // _MS_PER_S)))
            for kind, limit, remaining, reset_ms in quotas
        ]
    )


def duration(ms: int) -> bytes:
    """A span as OpenAI writes it: 17ms, 1.5s, 6m0s, 24h0m0s."""
    if ms < _MS_PER_S:
        return b"%dms" % ms
    seconds, ms = divmod(ms, _MS_PER_S)
    fraction = b"" if not ms else (b".%03d" % ms).rstrip(b"0")
    if seconds < _S_PER_MINUTE:
        return b"%d%bs" % (seconds, fraction)
    minutes, seconds = divmod(seconds, _S_PER_MINUTE)
    hours, minutes = divmod(minutes, _S_PER_MINUTE)
    hour = b"%dh" % hours if hours else b""
    return b"%b%dm%d%bs" % (hour, minutes, seconds, fraction)


@lru_cache(maxsize=64)
def moment(seconds: int) -> bytes:
    """A moment in RFC 3339, UTC."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()


@lru_cache(maxsize=_TEMPLATES)
def _openai_template(kind: str, limit: int) -> bytes:
    return (
        f"x-ratelimit-limit-{kind}: {limit}\r\nx-ratelimit-remaining-{kind}: %d\r\nx-ratelimit-reset-{kind}: %b\r\n"
    ).encode()


@lru_cache(maxsize=_TEMPLATES)
def _anthropic_template(kind: str, limit: int) -> bytes:
    prefix = f"anthropic-ratelimit-{kind}"
    return f"{prefix}-limit: {limit}\r\n{prefix}-remaining: %d\r\n{prefix}-reset: %b\r\n".encode()


_OPENAI_KINDS: Final = ("requests", "tokens")
_SPELLINGS: Final[dict[str, Callable[[Iterable[Quota], int], bytes]]] = {"openai": _openai, "anthropic": _anthropic}
