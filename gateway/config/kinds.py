"""The kinds of provider a config may name, and the dialect each speaks: what the checks must know and nothing more.

How a kind is reached and paid is `providers/`, which stands above and cannot be asked from here; a test there holds
the two tables together. A kind that is planned is listed, so that naming it is answered as "not yet" and not as a
misspelling.
"""

from typing import Final, NamedTuple


class Kind(NamedTuple):
    """`dialect` is what callers must speak to be served by it without translation."""

    dialect: str
    built: bool


KINDS: Final[dict[str, Kind]] = {
    "openai": Kind("openai", built=True),
    "azure": Kind("openai", built=False),
    "anthropic": Kind("anthropic", built=True),
    "bedrock": Kind("bedrock", built=False),
    "gemini": Kind("gemini", built=False),
    "vertex": Kind("gemini", built=False),
}
BUILT: Final = tuple(name for name, kind in KINDS.items() if kind.built)
