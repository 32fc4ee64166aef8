"""Flags of single chat events; whole streams are in corpus/sse."""

import pytest

from gateway.dialects.base import Seen
from gateway.dialects.openai.chat_stream import ChatStreamReader


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        ('{"choices":[{"index":0,"delta":{"content":"x"}}]}', Seen.CONTENT),
        ('{"choices":[{"index":0,"delta":{"content":""}}]}', Seen.NOTHING),
        ('{"choices":[{"index":0,"delta":null}]}', Seen.NOTHING),
        ('{"choices":[{"delta":{"content":"x"}}]}', Seen.CONTENT),
        ('{"choices":null}', Seen.NOTHING),
        ("{}", Seen.NOTHING),
        ('{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}', Seen.CONTENT),
        ('{"choices":[{"index":0,"delta":{},"finish_reason":""}]}', Seen.NOTHING),
        ('{"choices":[],"usage":{"prompt_tokens":1}}', Seen.USAGE | Seen.USAGE_ONLY),
        ('{"choices":[],"usage":null}', Seen.NOTHING),
        ('{"choices":[],"usage":{}}', Seen.NOTHING),
        ('{"usage":{"prompt_tokens":1}}', Seen.USAGE),
        ('{"choices":[{"index":0,"delta":{"content":"x"}}],"usage":{"prompt_tokens":1}}', Seen.CONTENT | Seen.USAGE),
        ('{"choices":[],"error":null}', Seen.NOTHING),
        ('{"error":"boom"}', Seen.ERROR),
        ('{"object":"error","message":"x"}', Seen.ERROR),
        ("[DONE]", Seen.DONE),
        ("[DONE] ", Seen.DONE),
        ("nonsense", Seen.UNREADABLE),
        ('{"choices":7}', Seen.UNREADABLE),
        ("[]", Seen.UNREADABLE),
        ("", Seen.NOTHING),
        ("[" * 3000, Seen.UNREADABLE),
    ],
)
def test_flags(data: str, seen: Seen) -> None:
    assert ChatStreamReader().read(f"data: {data}\n\n".encode()) == seen


def test_text_is_metered_whatever_carries_it() -> None:
    reader = ChatStreamReader()
    for delta in ('{"content":"abc"}', '{"reasoning_content":"de"}', '{"refusal":"f"}', '{"content":null}', "{}"):
        reader.read(b'data: {"choices":[{"index":0,"delta":%b}]}\n\n' % delta.encode())
    reader.read(b'data: {"choices":[{"index":0,"text":"gh"}]}\n\n')
    assert reader.text_bytes == 8


def test_nothing_seen_is_not_complete() -> None:
    assert not ChatStreamReader().complete_at_eof()
