"""How much a request asks of a model: bytes of text, media, the longest answer allowed, and how many answers.

The vocabulary between reading a body (`measure.py`, and `survey.py` for odd ones) and reserving for it
(`limiter/estimate.py`): sizes, not sense, and no tokens yet, since those depend on the model.
"""

from typing import Final

import msgspec

from gateway.dialects.media import Media


class Asked(msgspec.Struct, frozen=True, gc=False):
    """What a request asks for. Text is counted unescaped, in UTF-8; `messages`, as each costs a few tokens of framing.

    `whole` is false where the provider will count what does not stand in the body as text (a picture, an earlier
    response, a stored file, a tool that it runs itself): such a request says nothing about bytes per token.
    """

    text_bytes: int = 0
    messages: int = 0
    tokens: int = 0  # of prompts that were sent as token ids
    media: tuple[Media, ...] = ()
    max_output: int | None = None  # for each answer, None where the caller set no limit
    n: int = 1  # answers
    stream: bool = False
    whole: bool = True
    spoken: bool = False  # the answer is to be heard, too


UNREAD: Final = Asked(whole=False)
"""A body that is not JSON (a form, a passthrough): its size says nothing about tokens."""
