"""The OpenAI dialect: one object that answers `base.Dialect`'s questions for every OpenAI surface."""

from collections.abc import Callable
from typing import Final

import msgspec

from gateway.dialects import error_text
from gateway.dialects.base import Dialect, RequestFacts, StreamReader, Surface
from gateway.dialects.openai import errors, request, usage
from gateway.dialects.openai.chat_stream import ChatStreamReader
from gateway.dialects.openai.typed_stream import MediaReader, OpaqueReader, ResponsesReader
from gateway.errors import GatewayError
from gateway.record import Usage

_OWNER: Final = "gateway"
_READERS: Final[dict[str, Callable[[], StreamReader]]] = {
    "chat.completions": ChatStreamReader,
    "completions": ChatStreamReader,
    "responses": ResponsesReader,
    "images.generations": MediaReader,
    "images.edits": MediaReader,
    "audio.speech": MediaReader,
    "audio.transcriptions": MediaReader,
    "audio.translations": MediaReader,
}


class OpenAI:
    """See `base.Dialect`."""

    name = "openai"

    def read_request(self, surface: Surface, body: bytes) -> RequestFacts:
        """Facts of a JSON body. Raises InvalidRequest (400) naming the field and the fix."""
        return request.read(surface, body)

    def stream_reader(self, surface: Surface) -> StreamReader:
        """A fresh reader for one streamed answer."""
        return _READERS.get(surface.name, OpaqueReader)()

    def read_usage(self, surface: Surface, body: bytes) -> Usage | None:  # noqa: ARG002 - one shape for all surfaces
        """Usage of a whole (not streamed) answer, None where it says none."""
        return usage.of_answer(body)

    def read_error(self, body: bytes) -> str:
        """The provider's own message from an error answer, "" when there is none to be read."""
        return error_text.read(body)

    def error_body(self, error: GatewayError, request_id: str) -> bytes:  # noqa: ARG002 - a header carries the id
        """The error as a JSON answer."""
        return errors.body(error)

    def error_event(self, surface: Surface, error: GatewayError, request_id: str) -> bytes:  # noqa: ARG002 - as above
        """The error as this surface's SSE event, with its final blank line."""
        return errors.event(surface, error)

    def models_body(self, names: tuple[str, ...], created_s: int) -> bytes:
        """The list of models."""
        return msgspec.json.encode({"object": "list", "data": [_model(name, created_s) for name in names]})

    def model_body(self, name: str, created_s: int) -> bytes:
        """One model."""
        return msgspec.json.encode(_model(name, created_s))


def _model(name: str, created_s: int) -> dict[str, str | int]:
    return {"id": name, "object": "model", "created": created_s, "owned_by": _OWNER}


OPENAI: Final[Dialect] = OpenAI()
