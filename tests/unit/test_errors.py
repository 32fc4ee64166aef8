"""Every error has its own code, a status that fits whose fault it is, and a message that is the caller's."""

from collections.abc import Iterator

import pytest

from gateway import errors
from gateway.errors import GatewayError, Retry, Source, UpstreamError, UpstreamTimeout


def below(kind: type[GatewayError]) -> Iterator[type[GatewayError]]:
    for child in kind.__subclasses__():
        yield child
        yield from below(child)


KINDS = [kind for kind in below(GatewayError) if kind.__module__ == errors.__name__]

FROZEN = {  # codes are an interface: callers and dashboards match on them
    "body_too_large": 413,
    "disabled_api_key": 403,
    "expired_api_key": 401,
    "headers_too_large": 431,
    "internal_error": 500,
    "invalid_api_key": 401,
    "invalid_request": 400,
    "journal_unavailable": 503,
    "limits_unavailable": 503,
    "malformed_http": 400,
    "method_not_allowed": 405,
    "missing_api_key": 401,
    "model_not_allowed": 403,
    "model_not_found": 404,
    "model_not_priced": 403,
    "no_target_available": 503,
    "not_found": 404,
    "overloaded": 503,
    "provider_configuration": 502,
    "rate_limit_exceeded": 429,
    "refused_body": 400,
    "request_too_large_for_limit": 400,
    "request_timeout": 408,
    "stored_object_not_allowed": 400,
    "unsupported_media_type": 415,
    "upstream_connect_error": 502,
    "upstream_connect_timeout": 504,
    "upstream_empty": 502,
    "upstream_error": 502,
    "upstream_error_in_stream": 502,
    "upstream_protocol_error": 502,
    "upstream_reset": 502,
    "upstream_status": 502,
    "upstream_timeout": 504,
    "upstream_truncated": 502,
    "uri_too_long": 414,
}


def test_codes_and_statuses_are_frozen() -> None:
    assert {kind.code: kind.status for kind in KINDS} == FROZEN


def test_no_two_errors_share_a_code() -> None:
    assert len({kind.code for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_status_and_source_agree(kind: type[GatewayError]) -> None:
    assert (kind.status < 500) == (kind.source is Source.CALLER)
    assert kind.__doc__


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_provider_side_can_be_retried_elsewhere(kind: type[GatewayError]) -> None:
    if kind.retry is Retry.ELSEWHERE:
        assert issubclass(kind, UpstreamError)


def test_after_content_nothing_is_retried() -> None:
    assert errors.StreamTruncated.retry is Retry.NEVER


def test_an_error_carries_what_the_caller_sees_and_what_the_log_sees() -> None:
    error = errors.InvalidRequest("say less", param="messages", retry_after_s=3, detail="for the log")
    assert (str(error), error.message, error.param) == ("say less", "say less", "messages")
    assert (error.retry_after_s, error.detail) == (3, "for the log")
    assert (errors.NotFound("x").param, errors.NotFound("x").retry_after_s) == (None, None)


def test_a_timeout_says_which() -> None:
    error = UpstreamTimeout("too slow", which="idle")
    assert (error.which, error.detail) == ("idle", "idle")


@pytest.mark.parametrize(("wait_ms", "seconds"), [(1, 1), (1_000, 1), (1_001, 2), (60_000, 60)])
def test_a_wait_is_announced_in_whole_seconds_rounded_up(wait_ms: int, seconds: int) -> None:
    error = errors.RateLimited("wait", rule="key.rpm", retry_after_ms=wait_ms, levels=(1, -2))
    assert (error.retry_after_ms, error.retry_after_s, error.levels) == (wait_ms, seconds, (1, -2))
    assert (error.rule, error.detail, error.header_lines("openai")) == ("key.rpm", "key.rpm", b"")


def test_what_never_fits_names_its_limit_and_no_wait() -> None:
    error = errors.NeverFits("less", rule="key.tpm")
    assert (error.rule, error.detail, error.retry_after_s) == ("key.tpm", "key.tpm", None)
