"""How each dialect says what is left of a limit: header lines on every answer of a limited key.

OpenAI has two families (requests, tokens) of three headers and tells the reset as a duration; Anthropic has four
(requests, tokens, input and output tokens) and tells it as a moment. Sources: "Rate limits in headers" of OpenAI's
rate limit guide, "Response headers" of Anthropic's. Other dialects have no words of their own and use OpenAI's.

Left out: which limit is told where several apply (`limiter/headers.py`).
"""

import datetime as dt
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final

_MS_PER_S: Final = 1000
_S_PER_MINUTE: Final = 60


Quota = tuple[str, int, int, int]
"""One family: its kind (requests, tokens, input-tokens, output-tokens), limit, what remains, ms until all is back."""


def header_lines(dialect: str, quotas: Iterable[Quota], wall_ms: int) -> bytes:
    """The header lines, each with its line end; b"" for none."""
    return _SPELLINGS.get(dialect, _openai)(quotas, wall_ms)


def _openai(quotas: Iterable[Quota], _wall_ms: int) -> bytes:
    told = ""
    for kind, limit, remaining, reset_ms in quotas:
        if kind in _OPENAI_KINDS:
            reset = f"{reset_ms}ms" if reset_ms < _MS_PER_S else _in_seconds(reset_ms)  # without a call for most
            told += (
                f"x-ratelimit-limit-{kind}: {limit}\r\nx-ratelimit-remaining-{kind}: {remaining}\r\n"
                f"x-ratelimit-reset-{kind}: {reset}\r\n"
            )
    return told.encode()


def _anthropic(quotas: Iterable[Quota], wall_ms: int) -> bytes:
    told = ""
    for kind, limit, remaining, reset_ms in quotas:
        prefix = f"anthropic-ratelimit-{kind}"
        told += (
            f"{prefix}-limit: {limit}\r\n{prefix}-remaining: {remaining}\r\n"
            f"{prefix}-reset: {moment(-(-(wall_ms + reset_ms) // _MS_PER_S))}\r\n"
        )
    return told.encode()


def _in_seconds(ms: int) -> str:
    """A span of a second or more, as OpenAI writes it: 1.5s, 6m0s, 24h0m0s."""
    seconds, ms = divmod(ms, _MS_PER_S)
    fraction = f".{ms:03d}".rstrip("0") if ms else ""
    if seconds < _S_PER_MINUTE:
        return f"{seconds}{fraction}s"
    minutes, seconds = divmod(seconds, _S_PER_MINUTE)
    hours, minutes = divmod(minutes, _S_PER_MINUTE)
    hour = f"{hours}h" if hours else ""
    return f"{hour}{minutes}m{seconds}{fraction}s"


@lru_cache(maxsize=64)
def moment(seconds: int) -> str:
    """A moment in RFC 3339, UTC."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_OPENAI_KINDS: Final = ("requests", "tokens")
_SPELLINGS: Final[dict[str, Callable[[Iterable[Quota], int], bytes]]] = {"openai": _openai, "anthropic": _anthropic}
