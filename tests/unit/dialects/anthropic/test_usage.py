"""Anthropic's counts in the meaning of record.Usage."""

import pytest

from gateway.dialects.anthropic.usage import Counts, merge, of_answer, to_usage
from gateway.record import Usage


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        (b'{"usage":{"input_tokens":10,"output_tokens":5}}', Usage(10, 5)),
        (
            (
                b'{"usage":{"input_tokens":10,"cache_read_input_tokens":3,"cache_creation_input_tokens":2,"output_tokens":5,'
                b'"output_tokens_details":{"thinking_tokens":4}}}'
            ),
            Usage(15, 5, cache_read_tokens=3, cache_write_tokens=2, reasoning_tokens=4),
        ),
        (b'{"usage":{"input_tokens":10,"cache_read_input_tokens":null,"output_tokens":5}}', Usage(10, 5)),
        (b'{"usage":{"output_tokens":5,"output_tokens_details":{"thinking_tokens":"many"}}}', Usage(0, 5)),
        (b'{"usage":{"output_tokens":5,"output_tokens_details":{"thinking_tokens":-4}}}', Usage(0, 5)),
        (b'{"usage":{"output_tokens":5,"output_tokens_details":{"thinking_tokens":100000001}}}', Usage(0, 5)),
        (b'{"usage":{"input_tokens":-10,"output_tokens":5}}', None),
        (b'{"usage":{"input_tokens":10,"output_tokens":100000001}}', None),
        (b'{"usage":{"input_tokens":%b}}' % (b"9" * 5000), None),
        (b'{"input_tokens":10}', None),
        (b'{"usage":null}', None),
        (b'{"usage":{"input_tokens":"10"}}', None),
        (b"nonsense", None),
        (b'{"a":' + b"[" * 9000, None),
        (b'{"content":[{"text":"\\ud800"}],"usage":{"input_tokens":1,"output_tokens":1}}', Usage(1, 1)),
    ],
)
def test_of_answer(body: bytes, usage: Usage | None) -> None:
    assert of_answer(body) == usage


def test_later_counts_replace_and_missing_ones_leave() -> None:
    first = Counts(input_tokens=10, output_tokens=1, cache_read_input_tokens=2)
    merged = merge(merge(None, first), Counts(output_tokens=7, cache_read_input_tokens=3))
    assert to_usage(merged) == Usage(13, 7, cache_read_tokens=3)
