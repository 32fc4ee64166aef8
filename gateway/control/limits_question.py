"""A question about limits: whose request, for which model, how large; as it is written in a query.

`tokens` is what the prompt takes and `output_tokens` the answer. Where neither is said the request is one that sets no
limit of its own, and reserves what the gateway would for its answer; where only `tokens` is, that is all it takes.

Pure; left out: whether there is such a key or model (`limits_case.py`).
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from gateway.config.problems import did_you_mean, printable

MAX_TOKENS: Final = 10**8  # of one request, as the gateway estimates them
DEFAULT_PATH: Final = "/v1/chat/completions"
NAMES: Final = ("key", "model", "path", "end_user", "provider", "tokens", "output_tokens")
_MAX_CHARACTERS: Final = 2048
_MAX_DIGITS: Final = 12


class BadQuestion(ValueError):
    """The question makes no sense; the message says which word, and what would."""


class Question(NamedTuple):
    """What is asked. Of a number that was not said, None."""

    key: str
    model: str = ""
    path: str = DEFAULT_PATH
    end_user: str = ""
    provider: str = ""
    tokens: int | None = None
    output_tokens: int | None = None


def parse(query: Iterable[tuple[str, str]]) -> Question:
    """The question that a query asks. Raises BadQuestion."""
    given: dict[str, str] = {}
    for name, value in query:
        if name not in NAMES:
            near = did_you_mean(name[:_MAX_DIGITS], NAMES)
            raise BadQuestion(f"{printable(name)}: there is no such word{near or '; there are ' + ', '.join(NAMES)}")
        if name in given:
            raise BadQuestion(f"{name}: it is said more than once")
        if len(value) > _MAX_CHARACTERS:
            raise BadQuestion(f"{name}: it is longer than {_MAX_CHARACTERS} characters")
        given[name] = value
    if not given.get("key"):
        raise BadQuestion("key: say whose request it is, by the key's id")
    return Question(
        given["key"],
        given.get("model", ""),
        given.get("path") or DEFAULT_PATH,
        given.get("end_user", ""),
        given.get("provider", ""),
        _tokens(given, "tokens"),
        _tokens(given, "output_tokens"),
    )


def _tokens(given: dict[str, str], name: str) -> int | None:
    text = given.get(name)
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > _MAX_DIGITS or int(text) > MAX_TOKENS:
        raise BadQuestion(f"{name}: {printable(text)!r} is no whole number from 0 to {MAX_TOKENS}")
    return int(text)
