"""The Anthropic dialect: one object that answers `base.Dialect`'s questions for messages and token counts."""

from datetime import UTC, datetime
from typing import Final

import msgspec

from gateway.dialects import error_text
from gateway.dialects.anthropic import errors, request, usage
from gateway.dialects.anthropic.stream import MessageReader
from gateway.dialects.base import Dialect, RequestFacts, StreamReader, Surface
from gateway.errors import GatewayError
from gateway.record import Usage


class Anthropic:
    """See `base.Dialect`."""

    name = "anthropic"

    def read_request(self, surface: Surface, body: bytes) -> RequestFacts:
        """Facts of a JSON body. Raises InvalidRequest (400) naming the field and the fix."""
        return request.read(surface, body)

    def stream_reader(self, surface: Surface) -> StreamReader:  # noqa: ARG002 - one stream format
        """A fresh reader for one streamed answer."""
        return MessageReader()

    def read_usage(self, surface: Surface, body: bytes) -> Usage | None:  # noqa: ARG002 - one shape
        """Usage of a whole (not streamed) answer, None where it says none."""
        return usage.of_answer(body)

    def read_error(self, body: bytes) -> str:
        """The provider's own message from an error answer, "" when there is none to be read."""
        return error_text.read(body)

    def error_body(self, error: GatewayError, request_id: str) -> bytes:
        """The error as a JSON answer."""
        return errors.body(error, request_id)

    def error_event(self, surface: Surface, error: GatewayError, request_id: str) -> bytes:  # noqa: ARG002 - one form
        """The error as an SSE event, with its final blank line."""
        return errors.event(error, request_id)

    def models_body(self, names: tuple[str, ...], created_s: int) -> bytes:
        """The list of models, on one page."""
        ends = {"first_id": names[0], "last_id": names[-1]} if names else {"first_id": None, "last_id": None}
        data = [_model(name, created_s) for name in names]
        return msgspec.json.encode({"data": data, "has_more": False, **ends})

    def model_body(self, name: str, created_s: int) -> bytes:
        """One model."""
        return msgspec.json.encode(_model(name, created_s))


def _model(name: str, created_s: int) -> dict[str, str]:
    created = datetime.fromtimestamp(created_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": "model", "id": name, "display_name": name, "created_at": created}


ANTHROPIC: Final[Dialect] = Anthropic()
