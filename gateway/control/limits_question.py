"""A question about limits: whose request, for which model, how large; as it is written in a query.

`tokens` is what the prompt takes and `output_tokens` the answer. Where neither is said the request is one that sets no
limit of its own, and reserves what the gateway would for its answer; where only `tokens` is, that is all it takes.

Invariant: a Question that exists is of an API that callers have, and names a model where that one asks for one. Pure;
left out: whether there is such a key or model (`limits_case.py`).
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from gateway.config.problems import did_you_mean, printable
from gateway.dialects import surfaces
from gateway.dialects.base import BodyMode, Reply

MAX_TOKENS: Final = 10**8  # of one request, as the gateway estimates them
DEFAULT_PATH: Final = "/v1/chat/completions"
NAMES: Final = ("key", "model", "path", "end_user", "provider", "tokens", "output_tokens")
_MAX_CHARACTERS: Final = 2048
_MAX_DIGITS: Final = 12


class BadQuestion(ValueError):
    """The question makes no sense; the message says which word, and what would."""


class Question(NamedTuple):
    """What is asked. Of a number that was not said, None; `model` is "" on a passthrough path alone."""

    key: str
    model: str
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
    path = given.get("path") or DEFAULT_PATH
    return Question(
        given["key"],
        _model(given.get("model", ""), path),
        path,
        given.get("end_user", ""),
        given.get("provider", ""),
        _tokens(given, "tokens"),
        _tokens(given, "output_tokens"),
    )


def surface_of(path: str) -> surfaces.Match:
    """The API at a path, with the path's parameters. Raises BadQuestion for one that nothing limits."""
    found = surfaces.match("POST", path) or surfaces.match("GET", path)
    if found is None:
        near = did_you_mean(path, (surface.path for surface in surfaces.SURFACES))
        raise BadQuestion(f"path: callers have no API at {printable(path)!r}{near or '; see `gateway dialects`'}")
    if found.surface.reply is Reply.LOCAL:
        raise BadQuestion(f"path: {printable(path)!r} is answered by the gateway itself, and nothing limits it")
    return found


def _model(model: str, path: str) -> str:
    """The model that is meant, "" where the path shows none. Raises BadQuestion."""
    surface = surface_of(path).surface
    if surface.body is BodyMode.RAW:
        if model:
            raise BadQuestion("model: a request on a passthrough path shows none; leave it out")
        return ""
    if not model and not surface.default_model:
        raise BadQuestion("model: say which model is asked for, by the name that callers use")
    return model or surface.default_model


def _tokens(given: dict[str, str], name: str) -> int | None:
    text = given.get(name)
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > _MAX_DIGITS or int(text) > MAX_TOKENS:
        raise BadQuestion(f"{name}: {printable(text)!r} is no whole number from 0 to {MAX_TOKENS}")
    return int(text)
