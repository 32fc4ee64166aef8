"""Members that have a size, of every kind of body, message, item and part: what `measure.py` decodes, all else skipped.

One struct for a part of a message and an item of a response's input, whatever its type: no two types use a member
differently enough to matter to its size. Names are the published APIs'.
"""

import msgspec

from gateway.dialects.events import ABSENT


class Url(msgspec.Struct, gc=False):
    """A link to a picture, or a data URL."""

    url: str = ""
    detail: str | None = None


class Sound(msgspec.Struct, gc=False):
    """A recording, as base64."""

    data: str = ""


class File(msgspec.Struct, gc=False):
    """A file, as base64 or by its id."""

    file_data: str | None = None
    filename: str | None = None
    file_id: str | None = None


class Function(msgspec.Struct, gc=False):
    """What a function or a custom tool is called with."""

    arguments: str | None = None
    input: str | None = None


class Call(msgspec.Struct, gc=False):
    """A tool call of an earlier answer."""

    function: Function | None = None
    custom: Function | None = None


class Source(msgspec.Struct, gc=False):
    """Where a picture or a document of a block comes from."""

    type: str = ""
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    content: "str | list[Part] | None" = None


class Part(msgspec.Struct, gc=False):
    """A part of a message, or an item of a response's input."""

    type: str | None = None
    text: str | None = None
    content: "str | list[Part] | Part | None" = None
    source: Source | str | None = None
    image_url: Url | str | None = None
    detail: str | None = None
    input_audio: Sound | None = None
    file: File | None = None
    file_data: str | None = None
    filename: str | None = None
    file_id: str | None = None
    file_url: str | None = None
    input: msgspec.Raw = ABSENT
    arguments: str | None = None
    output: "str | list[Part] | Part | None" = None
    summary: "list[Part] | None" = None
    thinking: str | None = None
    refusal: str | None = None
    title: str | None = None
    context: str | None = None


class Message(msgspec.Struct, gc=False):
    """A message of a conversation."""

    content: str | list[Part] | None = None
    tool_calls: list[Call] | None = None
    function_call: Function | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    audio: msgspec.Raw = ABSENT


class Tool(msgspec.Struct, gc=False):
    """A tool's definition: only whose it is."""

    type: str | None = None


class Chat(msgspec.Struct, gc=False):
    """A chat completion."""

    messages: list[Message] = []
    tools: msgspec.Raw = ABSENT
    functions: msgspec.Raw = ABSENT
    response_format: msgspec.Raw = ABSENT
    web_search_options: msgspec.Raw = ABSENT
    audio: msgspec.Raw = ABSENT
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    stream: bool | None = None


class Messages(msgspec.Struct, gc=False):
    """A message request, or a count of its tokens."""

    messages: list[Message] = []
    system: str | list[Part] | None = None
    tools: msgspec.Raw = ABSENT
    container: msgspec.Raw = ABSENT
    mcp_servers: msgspec.Raw = ABSENT
    max_tokens: int | None = None
    stream: bool | None = None


class Response(msgspec.Struct, gc=False):
    """A response."""

    input: str | list[Part] | None = None
    instructions: str | None = None
    tools: msgspec.Raw = ABSENT
    text: msgspec.Raw = ABSENT
    previous_response_id: str | None = None
    conversation: msgspec.Raw = ABSENT
    prompt: msgspec.Raw = ABSENT
    max_output_tokens: int | None = None
    stream: bool | None = None


class Completion(msgspec.Struct, gc=False):
    """A completion of a bare prompt."""

    prompt: str | list[str | int | list[int]] | None = None
    suffix: str | None = None
    max_tokens: int | None = None
    n: int | None = None
    best_of: int | None = None
    stream: bool | None = None


class Input(msgspec.Struct, gc=False):
    """Embeddings and moderations: nothing is written."""

    input: str | list[str | int | list[int] | Part] | None = None


class Made(msgspec.Struct, gc=False):
    """Pictures and speech: a prompt, and an answer whose length nobody sets."""

    prompt: str | None = None
    input: str | None = None
    instructions: str | None = None
    images: list[Part] | None = None
    n: int | None = None
    stream: bool | None = None
