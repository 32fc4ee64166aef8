"""Exact token counts, for models whose config names a tokenizer file, and for short texts alone.

A real tokenizer takes 160 µs for 1 KB, ten times a whole lean request, so only bodies up to MAX_INLINE_BYTES are
counted with it on the event loop; longer ones are estimated from what the same model's settled requests taught
(`learned.py`): where a text is long, the average is a good guess of it.

The package `tokenizers` is an extra (`pip install 'sluice-gateway[limits]'`), imported when a config first names a
file.
Left out: where the text is (`dialects/measure.py`), and framing, which is no text (`estimate.py`).
"""

import importlib
from collections.abc import Iterable
from typing import Any, Final

PACKAGE: Final = "tokenizers"
EXTRA: Final = "limits"
MAX_INLINE_BYTES: Final = 2048


class TokenizerUnusable(Exception):
    """A tokenizer that the config names cannot be used; the message says which file, why, and what to do."""


class Tokenizer:
    """One model's tokenizer, loaded from the `tokenizer.json` that is published beside the model's weights."""

    def __init__(self, loaded: Any) -> None:  # noqa: ANN401 - the package may not be there to be typed
        self._encode = loaded.encode

    def count(self, texts: Iterable[str]) -> int:
        """Tokens of the texts, without the special ones of framing."""
        encode = self._encode
        return sum(len(encode(text, add_special_tokens=False).ids) for text in texts)


def load(path: str) -> Tokenizer:
    """The tokenizer in a file. Raises TokenizerUnusable."""
    try:
        package = importlib.import_module(PACKAGE)
    except ModuleNotFoundError:
        raise TokenizerUnusable(
            f"tokenizer {path}: the package {PACKAGE} is not installed: pip install 'sluice-gateway[{EXTRA}]',"
            " or leave `tokenizer` out: prompts are then estimated by what was used before"
        ) from None
    try:
        return Tokenizer(package.Tokenizer.from_file(path))
    except Exception as error:  # the package raises bare Exception
        raise TokenizerUnusable(
            f"tokenizer {path}: cannot be read: {error}; give the model's tokenizer.json"
        ) from error
