"""The model's name is required and plain; a shape is proven for every occurrence of a key."""

import msgspec
import pytest

from gateway.dialects.facts import MAX_MODEL_CHARS, checked_model, plain, required_model
from gateway.errors import InvalidRequest


@pytest.mark.parametrize("model", ["m", "openai/gpt-4o", "modèle 2", "x" * MAX_MODEL_CHARS])
def test_names_that_pass(model: str) -> None:
    assert checked_model(model) == model
    assert required_model({"model": msgspec.json.encode(model)}) == model


@pytest.mark.parametrize("model", ["", "x" * (MAX_MODEL_CHARS + 1), "a\nb", "a\x00", "a\u2028b"])
def test_names_that_do_not(model: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        checked_model(model)
    assert caught.value.param == "model"


def test_a_missing_name() -> None:
    with pytest.raises(InvalidRequest, match="missing"):
        required_model({})


class Shape(msgspec.Struct, forbid_unknown_fields=True):
    a: str


@pytest.mark.parametrize(
    ("value", "decoded"),
    [
        (b'{"a":"x"}', Shape("x")),
        (b'{"a":"x","b":1}', None),
        (b'{"a":1,"a":"x"}', None),
        (b'{"a":[],"a":"x"}', None),
        (b"{}", None),
        (b"[" * 2000, None),
    ],
)
def test_what_is_plain_is_decoded(value: bytes, decoded: Shape | None) -> None:
    assert plain(msgspec.json.Decoder(Shape), msgspec.Raw(value)) == decoded
