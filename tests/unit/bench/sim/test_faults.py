"""Behaviours are read strictly: a misspelt fault must fail where it is written, not do nothing."""

from dataclasses import fields
from pathlib import Path

import pytest

from bench.sim.faults import KEYS, PLAIN, BadBehaviour, Behaviour, behaviour, from_mapping, of_model, parse

DOCS = Path(__file__).parents[4] / "docs" / "sim.md"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("status=503; retry-after=2", {"status": 503, "retry_after": "2"}),
        ("reset=before", {"reset": "before"}),
        ("reset=3", {"reset": 3}),
        ("reset", {"reset": "content"}),
        ("split=random", {"split": "random"}),
        ("split", {"split": 1}),
        ("tps=50", {"token_ms": 20.0}),
        ("empty", {"empty": "clean"}),
        ("empty=done;; ", {"empty": "done"}),
        ("gzip; close=off", {"gzip": True, "close": False}),
        ("message=a=b c", {"message": "a=b c"}),
        ("", {}),
    ],
)
def test_a_spec_is_read(spec: str, expected: dict[str, object]) -> None:
    assert parse(spec) == expected


@pytest.mark.parametrize(
    "spec",
    [
        *("stall=now", "status=42", "status", "tps=0", "tps=inf"),
        *("token-ms=nan", "split=0", "gzip=maybe", "rest=1", "ping=-1"),
    ],
)
def test_a_mistake_names_itself(spec: str) -> None:
    with pytest.raises(BadBehaviour, match=spec.partition("=")[0]):
        parse(spec)


def test_a_mapping_says_the_same_as_a_spec() -> None:
    assert from_mapping({"status": 503, "close": True, "reset": "content", "gzip": None}) == parse(
        "status=503; close; reset=content; gzip"
    )


def test_the_model_name_carries_settings_behind_a_plus() -> None:
    assert of_model("gpt-4o") == ("gpt-4o", {})
    assert of_model("gpt-4o+tokens=3+cr") == ("gpt-4o", {"tokens": 3, "cr": True})


def test_the_first_layer_that_names_a_setting_wins() -> None:
    merged = behaviour({"tokens": 1}, {"tokens": 2, "ping": 3}, {"ping": 4, "cr": True})
    assert (merged.tokens, merged.ping, merged.cr) == (1, 3, True)
    assert behaviour({}, {}) is PLAIN


def test_every_key_sets_a_field_and_every_field_has_a_key() -> None:
    assert {key.field for key in KEYS} == {field.name for field in fields(Behaviour)}


def test_every_key_has_its_row_in_the_docs_in_the_same_order() -> None:
    text = DOCS.read_text(encoding="utf-8")
    places = [text.find(f"\n| `{key.name}") for key in KEYS]
    assert -1 not in places
    assert places == sorted(places)
