"""Sizes as people write them: 32MiB, 50GB, 512 KiB, 4096.

Binary units (KiB) are powers of 1024, decimal ones (KB) powers of 1000; a bare letter is refused, since half of all
tools read `M` as the one and half as the other.
"""

import re
from decimal import Decimal
from typing import Final

_UNITS: Final = {
    "": 1,
    "B": 1,
    **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)},
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGT", 1)},
}
_FOLDED: Final = {unit.lower(): factor for unit, factor in _UNITS.items()}
_SIZE: Final = re.compile(r"(\d[\d_]{0,20}(?:\.\d{1,9})?)\s*([A-Za-z]*)\Z")


def parse_size(text: str) -> int | None:
    """Bytes, or None where the text is no size of whole bytes."""
    found = _SIZE.match(text.strip())
    if found is None or found[2].lower() not in _FOLDED:
        return None
    size = Decimal(found[1].replace("_", "")) * _FOLDED[found[2].lower()]
    return int(size) if size == int(size) else None


def format_size(size: int) -> str:
    """The shortest spelling that is exact: 33554432 is 32MiB."""
    for unit, factor in sorted(_UNITS.items(), key=lambda item: -item[1]):
        if unit and factor > 1 and size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)
