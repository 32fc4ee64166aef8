"""The data and the name of one event, however it is laid out."""

import msgspec
import pytest

from gateway.dialects.events import ABSENT, data_of, decode, name_of, said


@pytest.mark.parametrize(
    ("event", "data", "name"),
    [
        (b"data: x\n\n", b"x", b""),
        (b"data:x\n\n", b"x", b""),
        (b"data:  x\n\n", b" x", b""),
        (b"event: a\ndata: x\n\n", b"x", b"a"),
        (b"event:a\ndata:x\n\n", b"x", b"a"),
        (b"data: x\nevent: a\n\n", b"x", b"a"),
        (b"data: x\ndata: y\n\n", b"x\ny", b""),
        (b"event: a\ndata: x\ndata: y\n\n", b"x\ny", b"a"),
        (b"event: a\nevent: b\ndata: x\n\n", b"x", b"b"),
        (b"event: a\nid: 1\ndata: x\n\n", b"x", b"a"),
        (b"data: x\r\n\r\n", b"x", b""),
        (b"event: a\r\ndata: x\r\n\r\n", b"x", b"a"),
        (b"data: x\r\r", b"x", b""),
        (b"\xef\xbb\xbfdata: x\n\n", b"x", b""),
        (b"\n\ndata: x\n\n", b"x", b""),
        (b": data: x\n\n", b"", b""),
        (b": event: a\n\n", b"", b""),
        (b"data\n\n", b"", b""),
        (b"database: x\n\n", b"", b""),
        (b"event: a\n\n", b"", b"a"),
        (b"\n", b"", b""),
    ],
)
def test_layouts(event: bytes, data: bytes, name: bytes) -> None:
    assert data_of(event).rstrip(b"\n") == data
    assert name_of(event) == name


def test_decode_steps_over_half_surrogates() -> None:
    decoder = msgspec.json.Decoder(dict[str, int | str])
    assert decode(decoder, b'{"a":1,"b":"\\ud83d"}')["a"] == 1


@pytest.mark.parametrize("data", [b"", b"[DONE]", b'{"a":', b'{"a":"\\ud83d",}', b'{"a":[]}'])
def test_decode_refuses_what_is_no_json_or_another_shape(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode(msgspec.json.Decoder(dict[str, int]), data)


def test_said() -> None:
    assert not said(ABSENT)
    assert not said(msgspec.Raw(b"null"))
    for value in (b"1", b'""', b"true", b"[]", b"false"):
        assert said(msgspec.Raw(value))
