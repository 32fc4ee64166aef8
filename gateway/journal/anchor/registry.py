"""The kinds of anchor there are, in the order the documentation lists them."""

from collections.abc import Callable
from typing import Final

from gateway.config.schema import Anchor as AnchorSettings
from gateway.journal.anchor.base import Anchor
from gateway.journal.anchor.file import FileAnchor
from gateway.journal.anchor.rfc3161 import TimestampAnchor
from gateway.journal.anchor.s3 import S3Anchor

ANCHORS: Final[tuple[tuple[str, Callable[[AnchorSettings], Anchor]], ...]] = (
    ("file", FileAnchor),
    ("s3", S3Anchor),
    ("rfc3161", TimestampAnchor),
)


def anchor_of(settings: AnchorSettings) -> Anchor:
    """The anchor that these settings describe; nothing is opened or asked yet."""
    return dict(ANCHORS)[settings.kind](settings)
