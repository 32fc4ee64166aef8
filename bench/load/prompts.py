"""What callers ask: bodies of realistic sizes and shapes, invented from a random generator that the caller seeds.

Nothing here imports Locust or the gateway. Sizes are of the prompt's text in bytes; the JSON around it adds a little.
"""

import json
from random import Random
from typing import Final

SENTENCE: Final = (
    "the contract report of a quarter shows that revenue in Zürich grew while costs and headcount did not; compare "
    'section “three” with the appendix, name what is missing, and answer in one sentence per finding "briefly"'
)
WORDS: Final = SENTENCE.split()
SHORT_BYTES, RAG_BYTES, LONG_BYTES = 200, 8_000, 100_000
MIX: Final = (("short", SHORT_BYTES, 60), ("rag", RAG_BYTES, 30), ("100 KB", LONG_BYTES, 10))
"""Name, size and share in per cent of the `chat` profile's prompts."""
TOOL: Final = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Search the archive.",
        "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
    },
}
AGENT_TURNS: Final = 6
TOOL_RESULT_BYTES: Final = 3_000
EMBEDDING_INPUTS: Final = 16
EMBEDDING_BYTES: Final = 600

Message = dict[str, object]


def text(random: Random, size: int) -> str:
    """Words of about `size` bytes, other ones each time."""
    words: list[str] = []
    length = 0
    while length < size:
        run = random.sample(WORDS, 12)
        words += run
        length += sum(len(word.encode()) + 1 for word in run)
    return " ".join(words)


def _encoded(body: Message) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()


def chat(random: Random, model: str) -> tuple[str, bytes]:
    """A prompt of the mix: its name and the body."""
    name, size, _ = random.choices(MIX, [share for *_, share in MIX])[0]
    return name, sized(random, model, size)


def sized(random: Random, model: str, size: int, *, stream: bool = False) -> bytes:
    """One question with `size` bytes of context."""
    messages = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": text(random, size)}]
    body: Message = {"model": model, "messages": messages, "temperature": 0.2}
    return _encoded(body | {"stream": True, "stream_options": {"include_usage": True}} if stream else body)


def opening(random: Random) -> list[Message]:
    """How an agent's conversation begins."""
    return [{"role": "system", "content": text(random, 2_000)}, {"role": "user", "content": text(random, 300)}]


def agent(messages: list[Message], model: str) -> bytes:
    """The next request of an agent's conversation."""
    return _encoded({"model": model, "messages": messages, "tools": [TOOL]})


def after_tool(random: Random, messages: list[Message], turn: int) -> list[Message]:
    """The conversation, grown by one call of the tool and its result."""
    arguments = json.dumps({"query": text(random, 40)}, ensure_ascii=False)
    call = {"id": f"call_{turn}", "type": "function", "function": {"name": "search", "arguments": arguments}}
    return [
        *messages,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": f"call_{turn}", "content": text(random, TOOL_RESULT_BYTES)},
    ]


def embeddings(random: Random, model: str) -> bytes:
    """A batch of passages."""
    return _encoded({"model": model, "input": [text(random, EMBEDDING_BYTES) for _ in range(EMBEDDING_INPUTS)]})
