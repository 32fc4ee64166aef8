"""The surfaces: every path a caller may use, in the order the docs list them.

A table and a matcher, nothing else. Exact paths are found by one dict lookup; paths with parameters are tried in
order. Matching is on the path as sent, before any decoding: a path with %2f, `//` or `/../` matches nothing here,
so that we and the provider cannot read the same path differently.
"""

from typing import Final, NamedTuple

from gateway.dialects.base import BodyMode, Reply, Surface

_JSON: Final = BodyMode.BUFFERED
_FORM: Final = BodyMode.MULTIPART
_NONE: Final = BodyMode.NONE

SURFACES: Final[tuple[Surface, ...]] = (
    Surface("chat.completions", "openai", "POST", "/v1/chat/completions", _JSON, "/chat/completions", usage_flag=True),
    Surface("completions", "openai", "POST", "/v1/completions", _JSON, "/completions", usage_flag=True),
    Surface("responses", "openai", "POST", "/v1/responses", _JSON, "/responses"),
    Surface("embeddings", "openai", "POST", "/v1/embeddings", _JSON, "/embeddings"),
    Surface(
        "moderations",
        "openai",
        "POST",
        "/v1/moderations",
        _JSON,
        "/moderations",
        default_model="omni-moderation-latest",
    ),
    Surface("images.generations", "openai", "POST", "/v1/images/generations", _JSON, "/images/generations"),
    Surface("images.edits", "openai", "POST", "/v1/images/edits", _FORM, "/images/edits", json_or_multipart=True),
    Surface("images.variations", "openai", "POST", "/v1/images/variations", _FORM, "/images/variations"),
    Surface("audio.speech", "openai", "POST", "/v1/audio/speech", _JSON, "/audio/speech"),
    Surface("audio.transcriptions", "openai", "POST", "/v1/audio/transcriptions", _FORM, "/audio/transcriptions"),
    Surface("audio.translations", "openai", "POST", "/v1/audio/translations", _FORM, "/audio/translations"),
    Surface("models", "openai", "GET", "/v1/models", _NONE, reply=Reply.LOCAL),
    Surface("models.retrieve", "openai", "GET", "/v1/models/{model...}", _NONE, reply=Reply.LOCAL),
    Surface("messages", "anthropic", "POST", "/v1/messages", _JSON, "/messages"),
    Surface("messages.count_tokens", "anthropic", "POST", "/v1/messages/count_tokens", _JSON, "/messages/count_tokens"),
    Surface("passthrough", "openai", "*", "/passthrough/{provider}/{rest...}", BodyMode.RAW, "/{rest}"),
)


class Match(NamedTuple):
    """A surface and what its path's parameters were."""

    surface: Surface
    params: dict[str, str]


_NO_PARAMS: Final[dict[str, str]] = {}
_EXACT: Final = {(s.method, s.path): Match(s, _NO_PARAMS) for s in SURFACES if "{" not in s.path}
_TRICKS: Final = ("%2e", "%2f", "%5c", "\\")
_PATTERNS: Final = tuple(s for s in SURFACES if "{" in s.path)
_PATHS: Final = {s.path for s in SURFACES}


def match(method: str, path: str) -> Match | None:
    """The surface of a request, or None; `path` is without its query."""
    found = _EXACT.get((method, path))
    if found is not None:
        return found
    for surface in _PATTERNS:
        if surface.method not in (method, "*"):
            continue
        params = _params(surface.path, path)
        if params is not None:
            return Match(surface, params)
    return None


def known_path(path: str) -> bool:
    """Whether the path exists under some method: tells a 405 from a 404."""
    return path in _PATHS or any(_params(s.path, path) is not None for s in _PATTERNS)


def _params(pattern: str, path: str) -> dict[str, str] | None:
    wanted, given = pattern.split("/"), path.split("/")
    params: dict[str, str] = {}
    for index, part in enumerate(wanted):
        if index >= len(given):
            return None
        if part.endswith("...}"):
            rest = "/".join(given[index:])
            params[part[1:-4]] = rest
            return params if rest and _plain(given[index:]) else None
        if part.startswith("{"):
            if not given[index]:
                return None
            params[part[1:-1]] = given[index]
        elif part != given[index]:
            return None
    return params if len(wanted) == len(given) else None


def _plain(parts: list[str]) -> bool:
    """No segment that a provider might resolve to another path than the one we matched."""
    lowered = [part.lower() for part in parts]
    return not any(part in ("", ".", "..") or any(trick in part for trick in _TRICKS) for part in lowered)
