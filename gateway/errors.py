"""Errors say whose fault: every way a request can fail, with its status, its source and what a retry would do.

An error is a value raised once and turned into bytes in one place (`listener/respond.py`), in the caller's dialect.
`message` is written for the caller: it names the fix and never carries a secret, a stack trace or an upstream
address. `detail` is for the log line only.

Left out: how a dialect spells an error (that is `dialects/`), and errors of loading a config (`config/problems.py`),
which no caller ever sees.
"""

from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_MS_PER_S: Final = 1000


class Source(Enum):
    """Who has to act for the next identical request to succeed."""

    CALLER = "caller"
    GATEWAY = "gateway"
    UPSTREAM = "upstream"
    PROVIDER_CONFIGURATION = "provider_configuration"


class Retry(Enum):
    """What may still be done for this request: nothing, or an attempt at another target."""

    NEVER = "never"
    ELSEWHERE = "elsewhere"


class GatewayError(Exception):
    """Base of all errors a caller can see.

    `code` is the stable machine-readable name, `status` the HTTP status, `param` the request field at fault where
    there is one, `retry_after_s` the wait to announce (None: say nothing).
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    source: ClassVar[Source] = Source.GATEWAY
    retry: ClassVar[Retry] = Retry.NEVER
    close: ClassVar[bool] = False  # the connection cannot be reused after this error: framing or trust is lost

    def __init__(
        self, message: str, *, param: str | None = None, retry_after_s: int | None = None, detail: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.detail = detail


# --- the caller's request -------------------------------------------------------------------------------------------


class MalformedHTTP(GatewayError):
    """The bytes are not one unambiguous HTTP/1.1 request; nothing after them can be trusted."""

    code, status, source, close = "malformed_http", 400, Source.CALLER, True


class InvalidRequest(GatewayError):
    """The request was understood as HTTP, but its body or parameters cannot be served as sent."""

    code, status, source = "invalid_request", 400, Source.CALLER


class UnsupportedStoredObject(GatewayError):
    """The body names an object stored at a provider account that several tenants may share."""

    code, status, source = "stored_object_not_allowed", 400, Source.CALLER


class MissingCredential(GatewayError):
    """No credential in any of the accepted headers."""

    code, status, source = "missing_api_key", 401, Source.CALLER


class InvalidCredential(GatewayError):
    """The credential matches no key of this gateway."""

    code, status, source = "invalid_api_key", 401, Source.CALLER


class KeyExpired(GatewayError):
    """The key was valid until a moment that has passed."""

    code, status, source = "expired_api_key", 401, Source.CALLER


class KeyDisabled(GatewayError):
    """The key exists, and an operator has disabled or revoked it."""

    code, status, source = "disabled_api_key", 403, Source.CALLER


class ModelNotAllowed(GatewayError):
    """The key may not use this model."""

    code, status, source = "model_not_allowed", 403, Source.CALLER


class ModelNotPriced(GatewayError):
    """The key's money is limited, and what the model costs is not known."""

    code, status, source = "model_not_priced", 403, Source.CALLER


class ModelNotFound(GatewayError):
    """No entry of the config's `models` answers to this name."""

    code, status, source = "model_not_found", 404, Source.CALLER


class NotFound(GatewayError):
    """No surface at this path."""

    code, status, source = "not_found", 404, Source.CALLER


class MethodNotAllowed(GatewayError):
    """The path exists, with another method."""

    code, status, source = "method_not_allowed", 405, Source.CALLER


class RequestTimeout(GatewayError):
    """The caller did not finish sending its request in time."""

    code, status, source, close = "request_timeout", 408, Source.CALLER, True


class BodyTooLarge(GatewayError):
    """The body, as sent or after decoding, is above `max_body_bytes`."""

    code, status, source, close = "body_too_large", 413, Source.CALLER, True


class UriTooLong(GatewayError):
    """The request target is longer than the listener reads."""

    code, status, source, close = "uri_too_long", 414, Source.CALLER, True


class UnsupportedEncoding(GatewayError):
    """The body's content-encoding, or its content-type, is one this surface does not read."""

    code, status, source, close = "unsupported_media_type", 415, Source.CALLER, True


class HeadersTooLarge(GatewayError):
    """The header block is longer than the listener reads."""

    code, status, source, close = "headers_too_large", 431, Source.CALLER, True


class RefusedBody(GatewayError):
    """This very body was being read when two workers died; it is refused for a while."""

    code, status, source = "refused_body", 400, Source.CALLER


class NeverFits(GatewayError):
    """The prompt alone is more than a limit ever allows at once: waiting does not help."""

    code, status, source = "request_too_large_for_limit", 400, Source.CALLER

    def __init__(self, message: str, *, rule: str) -> None:
        super().__init__(message, detail=rule)
        self.rule = rule


def _no_lines(_dialect: str) -> bytes:
    return b""


class RateLimited(GatewayError):
    """A limit is used up for now; `retry_after_ms` says until when, exactly, if nobody else comes first.

    `rule` is the limit's name, `levels` what is left of every bucket of the request, and `header_lines(dialect)` the
    same as lines of the answer's head.
    """

    code, status, source = "rate_limit_exceeded", 429, Source.CALLER

    def __init__(self, message: str, *, rule: str, retry_after_ms: int, levels: tuple[int, ...] = ()) -> None:
        super().__init__(message, retry_after_s=-(-retry_after_ms // _MS_PER_S), detail=rule)
        self.rule = rule
        self.retry_after_ms = retry_after_ms
        self.levels = levels
        self.header_lines: Callable[[str], bytes] = _no_lines


# --- ourselves ------------------------------------------------------------------------------------------------------


class InternalError(GatewayError):
    """A defect of the gateway; the log line has the detail."""


class Overloaded(GatewayError):
    """A bounded resource of this node (connections, spool, streams) is used up."""

    code, status, source = "overloaded", 503, Source.GATEWAY


class LimitsUnavailable(GatewayError):
    """What is left of a limit cannot be known now, and the limit is one that then refuses: `rule`, "" for all."""

    code, status = "limits_unavailable", 503

    def __init__(self, message: str, *, rule: str = "", retry_after_s: int | None = None, detail: str = "") -> None:
        super().__init__(message, retry_after_s=retry_after_s, detail=detail)
        self.rule = rule


class JournalUnavailable(GatewayError):
    """The record that must come before the first upstream byte could not be written; nothing was sent upstream."""

    code, status = "journal_unavailable", 503


class NoTarget(GatewayError):
    """No attempt was possible: every target of the model is out of service."""

    code, status, source = "no_target_available", 503, Source.UPSTREAM


# --- the provider ---------------------------------------------------------------------------------------------------


class UpstreamError(GatewayError):
    """Base of what goes wrong between us and a provider; before content another target may be tried."""

    code, status, source, retry = "upstream_error", 502, Source.UPSTREAM, Retry.ELSEWHERE


class UpstreamConnectError(UpstreamError):
    """No connection: refused, unreachable, unresolvable, or TLS not accepted. No request byte was sent."""

    code, status = "upstream_connect_error", 502


class UpstreamConnectTimeout(UpstreamConnectError):
    """No connection within `connect_s`."""

    code, status = "upstream_connect_timeout", 504


class UpstreamReset(UpstreamError):
    """The provider closed or reset the connection before its answer was complete."""

    code, status = "upstream_reset", 502


class UpstreamProtocolError(UpstreamError):
    """The provider's bytes are not HTTP/1.1, or its event stream is not one."""

    code, status = "upstream_protocol_error", 502


class UpstreamTimeout(UpstreamError):
    """A time limit of the route ran out; `which` is one of first_byte, first_content, idle, total."""

    code, status = "upstream_timeout", 504

    def __init__(self, message: str, *, which: str) -> None:
        super().__init__(message, detail=which)
        self.which = which


class UpstreamEmpty(UpstreamError):
    """A successful answer ended without any content and without its completion mark."""

    code, status = "upstream_empty", 502


class UpstreamFailedInside(UpstreamError):
    """An error arrived inside a 200 answer before any content."""

    code, status = "upstream_error_in_stream", 502


class UpstreamStatus(UpstreamError):
    """The provider answered with a status that is the provider's trouble (408, 429, 5xx)."""

    code, status = "upstream_status", 502


class ProviderConfiguration(UpstreamError):
    """The provider refused our own credential, account or model name (401, 402, 403, 404)."""

    code, status, source = "provider_configuration", 502, Source.PROVIDER_CONFIGURATION


class StreamTruncated(UpstreamError):
    """The answer broke off after content had gone downstream: nothing can be retried."""

    code, status, retry = "upstream_truncated", 502, Retry.NEVER
