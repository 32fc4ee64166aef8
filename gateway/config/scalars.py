"""Scalars: one piece of text read as what the schema wants, or a sentence saying how it should have been written.

A table from form to reader. Every reader is pure and raises ValueError with the fix; the caller adds the place.
"""

import datetime as dt
import ipaddress
import re
from collections.abc import Callable
from typing import Final

from gateway.config.problems import did_you_mean
from gateway.config.schema import Network
from gateway.config.sizes import parse_size
from gateway.config.spec import Form, Spec

_INTEGER: Final = re.compile(r"[-+]?\d[\d_]{0,18}\Z", re.ASCII)
_NUMBER: Final = re.compile(r"[-+]?(\d[\d_]{0,18})(\.\d{1,18})?([eE][-+]?\d{1,2})?\Z", re.ASCII)
_TRUTHS: Final = {"true": True, "false": False}
_YES_AND_NO: Final = {"yes": "true", "on": "true", "no": "false", "off": "false", "1": "true", "0": "false"}


def read_scalar(text: str, spec: Spec) -> object:
    """The text as a value of that type, within its bounds. Raises ValueError naming what is expected."""
    value = _READERS[spec.form](text, spec)
    if isinstance(value, str):
        _check_length(value, spec)
    elif isinstance(value, (int, float)):
        _check_bounds(value, spec)
    return value


def looks_like(text: str) -> object:
    """The JSON value that unquoted text stands for, where no schema says what it should be."""
    if text.lower() in _TRUTHS:
        return _TRUTHS[text.lower()]
    if _INTEGER.match(text):
        return int(text)
    return float(text) if _NUMBER.match(text) else text


def _check_length(value: str, spec: Spec) -> None:
    if len(value) < spec.min_length:
        raise ValueError("is empty: give it a value")
    if spec.max_length is not None and len(value) > spec.max_length:
        raise ValueError(f"is longer than {spec.max_length} characters")


def _check_bounds(value: float, spec: Spec) -> None:
    if spec.ge is not None and value < spec.ge:
        raise ValueError(f"must be at least {spec.ge}")
    if spec.le is not None and value > spec.le:
        raise ValueError(f"must be at most {spec.le}")


def _text(text: str, _spec: Spec) -> str:
    if not text.isprintable():
        raise ValueError("has characters that cannot be printed")
    return text


def _integer(text: str, spec: Spec) -> int:
    if spec.mark == "size":
        size = parse_size(text)
        if size is None:
            raise ValueError("must be a size: bytes, or a number with a unit such as 512KiB, 32MiB or 50GB")
        return size
    if not _INTEGER.match(text):
        raise ValueError("must be a whole number")
    return int(text)


def _number(text: str, _spec: Spec) -> float:
    if not _NUMBER.match(text):
        raise ValueError("must be a number")
    number = float(text)
    return int(number) if number.is_integer() else number


def _truth(text: str, _spec: Spec) -> bool:
    lowered = text.lower()
    if lowered in _TRUTHS:
        return _TRUTHS[lowered]
    older = _YES_AND_NO.get(lowered)  # what YAML 1.1 made of it
    raise ValueError(f"must be true or false{f'; did you mean {older}?' if older else ''}")


def _choice(text: str, spec: Spec) -> str:
    if text not in spec.choices:
        raise ValueError(f"must be {spec.called}{did_you_mean(text, spec.choices)}")
    return text


def _moment(text: str, _spec: Spec) -> dt.datetime:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError("must be a moment with its offset, as in 2027-01-31T00:00:00Z (RFC 3339)")
    return moment


def _network(text: str, _spec: Spec) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"must be an address or a network such as 10.0.0.0/8: {error}") from error


_READERS: Final[dict[Form, Callable[[str, Spec], object]]] = {
    "text": _text,
    "integer": _integer,
    "number": _number,
    "truth": _truth,
    "choice": _choice,
    "moment": _moment,
    "network": _network,
}
