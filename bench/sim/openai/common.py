"""What every OpenAI endpoint shares: the error object, the models list, usage, and the headers of an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from bench.sim.wire import Dialect, Event, Headers, Kind, sse

if TYPE_CHECKING:
    from bench.sim.ask import Ask

DONE = Event(Kind.DONE, b"data: [DONE]\n\n")
FINGERPRINT = "fp_51a0c0ffee"
CREATED = 1_715_367_049
MODELS = (
    "gpt-4o",
    "gpt-4o-mini",
    "gpt-3.5-turbo-instruct",
    "o3-mini",
    "text-embedding-3-small",
    "omni-moderation-latest",
    "gpt-image-1",
    "gpt-4o-mini-tts",
    "whisper-1",
    "gpt-4o-transcribe",
    "sim-echo",
)
_ERRORS: dict[int, tuple[str, str | None, str]] = {  # status → type, code, message
    400: ("invalid_request_error", None, "The request is not valid."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    402: ("insufficient_quota", "billing_hard_limit_reached", "Billing hard limit has been reached."),
    403: ("invalid_request_error", "unsupported_country_region_territory", "Access to this is not permitted."),
    404: ("invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it."),
    408: ("server_error", "timeout", "The request timed out."),
    413: ("invalid_request_error", "request_too_large", "The request is too large."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests. Please try again later."),
    503: ("server_error", "server_overloaded", "The server is overloaded or not ready yet."),
}
_SERVER_ERROR = ("server_error", None, "The server had an error while processing your request. Sorry about that!")


def error_object(status: int, message: str | None, code: str | None, param: str | None = None) -> dict[str, object]:
    """The object under `error` that goes with a status."""
    kind, usual_code, usual = _ERRORS.get(status, _SERVER_ERROR if status >= 500 else _ERRORS[400])  # noqa: PLR2004
    return {"message": message or usual, "type": kind, "param": param, "code": code or usual_code}


def error_body(status: int, message: str | None, code: str | None, param: str | None, request_id: str) -> bytes:
    """The body of an error answer; the request's id travels in a header only."""
    del request_id
    return orjson.dumps({"error": error_object(status, message, code, param)})


def error_event(path: str, message: str | None, code: str | None, request_id: str) -> bytes:
    """An error in the middle of a stream: the Responses API names its event, the others do not."""
    del request_id
    error = error_object(500, message, code)
    if path != "/v1/responses":
        return sse({"error": error})
    flat = {"type": "error", "code": code or "server_error", "message": error["message"], "param": None}
    return sse({**flat, "sequence_number": 0}, "error")


def headers(request_id: str, remaining: int, limit: int, processing_ms: int) -> Headers:
    """The headers OpenAI puts on its answers."""
    reset = f"{max(0, (limit - remaining)) * 6}ms"
    return [
        ("x-request-id", request_id),
        ("openai-processing-ms", str(processing_ms)),
        ("openai-version", "2020-10-01"),
        ("openai-organization", "sim-org"),
        ("x-ratelimit-limit-requests", str(limit)),
        ("x-ratelimit-remaining-requests", str(remaining)),
        ("x-ratelimit-reset-requests", reset),
        ("x-ratelimit-limit-tokens", str(limit * 200)),
        ("x-ratelimit-remaining-tokens", str(remaining * 200)),
        ("x-ratelimit-reset-tokens", reset),
    ]


def models() -> dict[str, object]:
    """The list of models; other names answer just as well."""
    data = [{"id": name, "object": "model", "created": CREATED, "owned_by": "sim"} for name in MODELS]
    return {"object": "list", "data": data}


def model(name: str) -> dict[str, object]:
    """One model, whatever its name."""
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "sim"}


def usage(ask: Ask, prompt: int, completion: int) -> dict[str, object]:
    """Usage as chat and text completions report it."""
    behaviour = ask.behaviour
    completion += behaviour.reasoning
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": min(behaviour.cached, prompt), "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": behaviour.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


DIALECT = Dialect(error_body, error_event, headers, models, model, ping=b": ping\n\n", ping_at=0)
