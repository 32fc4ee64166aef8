"""The dialects, in the order the docs list them. A new one is a row here, and its folder beside this file."""

from typing import Final

from gateway.dialects.anthropic.dialect import ANTHROPIC
from gateway.dialects.base import Dialect
from gateway.dialects.openai.dialect import OPENAI

DIALECTS: Final[tuple[Dialect, ...]] = (OPENAI, ANTHROPIC)

_BY_NAME: Final = {dialect.name: dialect for dialect in DIALECTS}


def find(name: str) -> Dialect:
    """The dialect of this name. Raises KeyError: names come from our own tables, never from a caller."""
    return _BY_NAME[name]
