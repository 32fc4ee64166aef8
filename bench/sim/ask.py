"""An Ask: one request as a dialect's handler sees it, with the behaviour that is to shape the answer.

The few things both dialects decide alike live here: what is said and how long it is, and whether a tool is called.
A Toolbox is the tools offered, whatever their dialect, reduced to names and schemas.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import orjson

from bench.sim import text
from bench.sim.wire import Refused, Request

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.sim.faults import Behaviour

ARGUMENT_CHARS = 8
USE_TOOL = "use the tool"


class Tool(NamedTuple):
    """A function the caller offers, with the JSON schema of its arguments."""

    name: str
    schema: Mapping[str, object]


@dataclass(slots=True)
class Ask:
    """A request, its JSON body (for multipart: its plain fields), and how to answer it."""

    request: Request
    body: Mapping[str, object]
    model: str
    behaviour: Behaviour
    created: int
    said: str | None = None
    files: Mapping[str, int] = field(default_factory=dict)

    @property
    def stream(self) -> bool:
        """Whether the caller wants events."""
        return self.body.get("stream") in (True, "true", "True", "1")

    def answer(self, prompt: str, limit: int | None = None, stops: Sequence[str] = ()) -> text.Answer:
        """What to say to that prompt, within the caller's limit of tokens and up to its stop sequences."""
        wanted = self.behaviour
        said = text.sentence(prompt) if self.said is None else self.said
        full = text.sized(said, wanted.tokens, wanted.big)
        return text.limited(full, limit, stops, big=wanted.big is not None)

    def spoken(self, value: object, limit: int | None = None) -> text.Answer:
        """A JSON value as the answer (structured output): as long as it is, or as the limit allows."""
        return text.limited(orjson.dumps(value).decode(), limit, ())

    def limit(self, *names: str) -> int | None:
        """The caller's limit under the first of these names that is set. Raises Refused below one."""
        for name in names:
            value = self.body.get(name)
            if value is None:
                continue
            limit = text.integer(value)
            if limit is None or limit < 1:
                raise Refused(400, f"Invalid '{name}': integer above or equal to 1 expected.", param=name)
            return limit
        return None

    def require(self, name: str, *kinds: type) -> object:
        """The value of a field every request must have. Raises Refused if it is absent or of another type."""
        value = self.body.get(name)
        if value is None:
            message = f"Missing required parameter: '{name}'."
            raise Refused(400, message, code="missing_required_parameter", param=name)
        if kinds and not isinstance(value, kinds):
            raise Refused(400, f"Invalid type for '{name}'.", code="invalid_type", param=name)
        return value


def chosen(tools: Sequence[Tool], named: str, prompt: str, *, forced: bool, forbidden: bool) -> Tool | None:
    """The tool to call: the named one, else the first if one must be called or the prompt says so."""
    if not tools or forbidden:
        return None
    if named:
        found = next((tool for tool in tools if tool.name == named), None)
        if found is None:
            raise Refused(400, f"Tool choice '{named}' was not found among the tools.", param="tool_choice")
        return found
    return tools[0] if forced or USE_TOOL in prompt.lower() else None


def arguments(tool: Tool) -> str:
    """Arguments that fit the tool's schema, as JSON text."""
    value = text.sample(tool.schema) if tool.schema else {}
    return orjson.dumps(value if isinstance(value, dict) else {}).decode()


def fragments(arguments_json: str) -> Iterator[str]:
    """The arguments in the small pieces a stream carries them in."""
    step = ARGUMENT_CHARS
    return (arguments_json[at : at + step] for at in range(0, len(arguments_json), step))


def new_id(prefix: str) -> str:
    """An identifier no other answer has."""
    return prefix + os.urandom(12).hex()
