"""The OpenAI dialect: `common` has errors and headers, the other modules one family of endpoints each.

Shapes follow OpenAI's published specification. ROUTES is every endpoint, in the order docs/sim.md lists them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.sim.openai import chat, completions, media, responses, vectors

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.sim.ask import Ask
    from bench.sim.wire import Reply

ROUTES: dict[str, Callable[[Ask], Reply]] = {
    "/v1/chat/completions": chat.create,
    "/v1/completions": completions.create,
    "/v1/responses": responses.create,
    "/v1/embeddings": vectors.embed,
    "/v1/moderations": vectors.moderate,
    "/v1/images/generations": media.image,
    "/v1/images/edits": media.image,
    "/v1/images/variations": media.image,
    "/v1/audio/speech": media.speech,
    "/v1/audio/transcriptions": media.transcribe,
    "/v1/audio/translations": media.transcribe,
}
