"""What the usage table counts, and what it counts by: names alone, for those who must not load a database for them."""

from hashlib import sha256
from typing import Final, NamedTuple

MEASURES: Final = (
    "requests",
    "refused",
    "failed",
    "truncated",
    "abandoned",
    "streamed",
    "estimated_requests",  # with tokens that the provider did not report
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "audio_input_tokens",
    "audio_output_tokens",
    "cost_microusd",
    "duration_us",
)
"""Columns that are summed, in the order they are shown."""

DIMENSIONS: Final = {
    "node": "node",
    "org": "org",
    "team": "team",
    "key": "key_id",
    "user": "user",
    "model": "model",
    "target": "target",
}
"""What people call it -> its column."""

HOUR_S: Final = 3_600
DAY_S: Final = 86_400
TIMES: Final = {"hour": HOUR_S, "day": DAY_S}
"""Spans of time that usage can be grouped by, UTC."""

MAX_CHARS: Final = 256
_ID_BYTES: Final = 16


class Group(NamedTuple):
    """Whose usage a row is; every text as `clean` leaves it, so that none holds a NUL."""

    node: str
    org: str
    team: str
    key_id: str
    user: str
    model: str
    target: str

    def id(self) -> bytes:
        """16 bytes that stand for the group, the same whenever and wherever they are made."""
        return sha256("\0".join(self).encode()).digest()[:_ID_BYTES]


def clean(text: str) -> str:
    """A text as it stands in the table: of bounded length, and without what Postgres does not take as text."""
    text = text[:MAX_CHARS]
    if text.isprintable():  # the usual case, and a quick one
        return text
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()
