"""Token counts of whole answers, in OpenAI's vocabularies."""

import pytest

from gateway.dialects.openai.usage import of_answer, parse
from gateway.record import Usage


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        (
            (
                b'{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21,'
                b'"prompt_tokens_details":{"cached_tokens":3,"audio_tokens":1},'
                b'"completion_tokens_details":{"reasoning_tokens":4,"audio_tokens":2,"accepted_prediction_tokens":0}}}'
            ),
            Usage(9, 12, cache_read_tokens=3, reasoning_tokens=4, audio_input_tokens=1, audio_output_tokens=2),
        ),
        (
            (
                b'{"output":[],"usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":6,"cache_write_tokens":5},'
                b'"output_tokens":87,"output_tokens_details":{"reasoning_tokens":7},"total_tokens":123}}'
            ),
            Usage(36, 87, cache_read_tokens=6, cache_write_tokens=5, reasoning_tokens=7),
        ),
        (b'{"data":[],"usage":{"prompt_tokens":8,"total_tokens":8}}', Usage(8)),
        (b'{"usage":{"input_tokens":50,"output_tokens":60,"input_tokens_details":{"text_tokens":10}}}', Usage(50, 60)),
        (
            (
                b'{"text":"x","usage":{"type":"tokens","input_tokens":14,"input_token_details":{"audio_tokens":14},'
                b'"output_tokens":45}}'
            ),
            Usage(14, 45, audio_input_tokens=14),
        ),
        (b'{"text":"x","usage":{"type":"duration","seconds":2.5}}', None),
        (b'{"usage":null}', None),
        (b'{"usage":{}}', None),
        (b'{"usage":{"prompt_tokens":null,"completion_tokens":null}}', None),
        (b'{"usage":{"prompt_tokens":1,"prompt_tokens_details":null}}', Usage(1)),
        (b'{"usage":{"prompt_tokens":"9"}}', None),
        (b'{"usage":{"prompt_tokens":-1,"completion_tokens":2}}', None),
        (b'{"usage":{"prompt_tokens":1,"completion_tokens":100000001}}', None),
        (b'{"usage":{"prompt_tokens":100000000,"completion_tokens":100000000}}', Usage(10**8, 10**8)),
        (b'{"usage":{"prompt_tokens":1,"completion_tokens_details":{"reasoning_tokens":-1}}}', None),
        (b'{"usage":{"prompt_tokens":%b}}' % (b"9" * 5000), None),
        (b'{"usage":7}', None),
        (b'{"usage":7,"usage":{"prompt_tokens":1}}', Usage(1)),
        (b'{"usage":{"prompt_tokens":1},"usage":7}', None),
        (b'{"choices":[{"text":"\\ud800"}],"usage":{"prompt_tokens":1}}', Usage(1)),
        (b"{}", None),
        (b"ID3\x04\x00", None),
        (b"", None),
        (b'{"a":' + b"[" * 9000, None),
    ],
)
def test_of_answer(body: bytes, usage: Usage | None) -> None:
    assert of_answer(body) == usage


def test_parse_takes_the_bare_object() -> None:
    assert parse(b'{"prompt_tokens":2,"completion_tokens":1}') == Usage(2, 1)
    assert parse(b"null") is None
