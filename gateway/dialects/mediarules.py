"""Whose rule says what a medium costs: by the dialect of the target, in the order the docs list them.

A new dialect is a row here, and its `media.py` beside this file.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from gateway.dialects.anthropic import media as anthropic
from gateway.dialects.media import Media
from gateway.dialects.openai import media as openai

MediaRule = Callable[[Media], int]

RULES: Final[dict[str, Callable[..., int]]] = {"openai": openai.tokens, "anthropic": anthropic.tokens}


def rule(dialect: str, model: str) -> MediaRule:
    """Tokens of a medium at an upstream model. Raises KeyError: dialects come from our own tables."""
    return partial(RULES[dialect], model=model)
