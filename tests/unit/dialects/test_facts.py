"""The model's name is required, short and printable."""

import msgspec
import pytest

from gateway.dialects.facts import MAX_MODEL_CHARS, checked_model, required_model
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
