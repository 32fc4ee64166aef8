"""What every dialect's request reader needs alike: the model's name."""

from typing import Final

import msgspec

from gateway.dialects.jsonguard import Values
from gateway.errors import InvalidRequest

MAX_MODEL_CHARS: Final = 256
_string: Final = msgspec.json.Decoder(str)


def required_model(values: Values) -> str:
    """The model's name as sent. Raises InvalidRequest where there is none."""
    said = values.get("model")
    model = _string.decode(said) if said is not None else ""
    return model if 0 < len(model) <= MAX_MODEL_CHARS and model.isprintable() else checked_model(model)


def checked_model(model: str) -> str:
    """The name itself. Raises InvalidRequest unless it has 1 to 256 printable characters."""
    if 0 < len(model) <= MAX_MODEL_CHARS and model.isprintable():
        return model
    problem = "must be" if model else "is missing: send the model's name as"
    raise InvalidRequest(f"`model` {problem} a string of 1 to {MAX_MODEL_CHARS} printable characters", param="model")
