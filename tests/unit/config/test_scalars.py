"""One piece of text, read as the schema wants it."""

import datetime as dt
import ipaddress
from contextlib import suppress
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from gateway.config.scalars import looks_like, read_scalar
from gateway.config.schema import Network, Size
from gateway.config.spec import spec

READ: list[tuple[object, str, object]] = [
    (str, "007", "007"),
    (str, "no", "no"),
    (int, "4_096", 4096),
    (int, "-1", -1),
    (float, "2", 2),
    (float, "2.5", 2.5),
    (float, "1e3", 1000),
    (bool, "true", True),
    (bool, "False", False),
    (Literal["1.2", "1.3"], "1.2", "1.2"),
    (Size, "32MiB", 2**25),
    (dt.datetime, "2027-01-31T00:00:00Z", dt.datetime(2027, 1, 31, tzinfo=dt.UTC)),
    (dt.datetime, "2027-01-31T01:00:00+01:00", dt.datetime(2027, 1, 31, tzinfo=dt.UTC)),
    (Network, "10.0.0.0/8", ipaddress.ip_network("10.0.0.0/8")),
    (Network, "::1", ipaddress.ip_network("::1/128")),
]


@pytest.mark.parametrize(("hint", "text", "value"), READ)
def test_values(hint: object, text: str, value: object) -> None:
    read = read_scalar(text, spec(hint))
    assert read == value
    assert type(read) is type(value)


REFUSED: list[tuple[object, str, str]] = [
    (str, "a\nb", "cannot be printed"),
    (int, "1.5", "must be a whole number"),
    (int, "0x10", "must be a whole number"),
    (int, "٣", "must be a whole number"),
    (float, "nan", "must be a number"),
    (float, "inf", "must be a number"),
    (bool, "yes", "did you mean true"),
    (bool, "maybe", "must be true or false"),
    (Literal["auto", "never"], "nver", 'one of auto, never; did you mean "never"'),
    (Size, "32M", "must be a size"),
    (dt.datetime, "2027-01-31", "with its offset"),
    (dt.datetime, "soon", "with its offset"),
    (Network, "10.0.0.1/8", "has host bits set"),
    (Annotated[int, Meta(ge=1)], "0", "must be at least 1"),
    (Annotated[int, Meta(le=9)], "10", "must be at most 9"),
    (Annotated[str, Meta(min_length=1)], "", "is empty"),
    (Annotated[str, Meta(max_length=2)], "abc", "longer than 2"),
]


@pytest.mark.parametrize(("hint", "text", "said"), REFUSED)
def test_refusals_say_how_it_should_be(hint: object, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_scalar(text, spec(hint))


def test_free_text_is_what_json_would_make_of_it() -> None:
    looks = {"true": True, "8": 8, "0.5": 0.5, "high": "high", "1.2.3": "1.2.3", "yes": "yes"}
    assert {text: looks_like(text) for text in looks} == looks


@given(st.text(), st.sampled_from([hint for hint, _, _ in READ]))
def test_any_text_is_a_value_or_a_sentence(text: str, hint: object) -> None:
    with suppress(ValueError):
        read_scalar(text, spec(hint))
