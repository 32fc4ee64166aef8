"""Every body of corpus/json, read by its surface's dialect: accepted with the facts, or refused by name."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.dialects import splice
from gateway.dialects.registry import find
from gateway.dialects.surfaces import SURFACES
from gateway.errors import InvalidRequest

CORPUS = Path(__file__).parents[1] / "corpus" / "json"
SURFACE = {surface.name: surface for surface in SURFACES}


def cases(name: str) -> Iterator[Any]:
    for case in yaml.safe_load((CORPUS / name).read_text()):
        yield pytest.param(case, id=case["name"])


def body_of(case: dict[str, Any]) -> bytes:
    if "hex" in case:
        return bytes.fromhex(case["hex"])
    piece, times = case.get("repeat", ("", 0))
    body: str = case["body"].replace("@R@", piece * times)
    if "close" in case:  # what the repeated piece opened, what the case itself opened, and the body
        body += case["close"] * times + "]" * case["body"].count('":["') + "}"
    return body.encode()


@pytest.mark.parametrize("case", list(cases("accepted.yaml")))
def test_accepted(case: dict[str, Any]) -> None:
    surface = SURFACE[case.get("surface", "chat.completions")]
    body = body_of(case)
    facts = find(surface.dialect).read_request(surface, body)
    wanted = {"model": "m", **case["facts"]}
    got = {name: getattr(facts, name) for name in wanted}
    assert {name: list(value) if isinstance(value, tuple) else value for name, value in got.items()} == wanted
    assert json.loads(body[facts.model_start : facts.model_end]) == facts.model
    changed = splice.apply(
        body, [splice.set_model(facts, "other"), splice.insert_members(facts, {"temperature": b"0.5"})]
    )
    assert (
        changed.replace(b'"temperature":0.5,', b"", 1)
        == body[: facts.model_start] + b'"other"' + body[facts.model_end :]
    )
    if facts.stream_options is not None:
        start, end = facts.stream_options
        assert isinstance(json.loads(body[start:end]), dict | None)


@pytest.mark.parametrize("case", list(cases("refused.yaml")))
def test_refused(case: dict[str, Any]) -> None:
    surface = SURFACE[case.get("surface", "chat.completions")]
    with pytest.raises(InvalidRequest) as caught:
        find(surface.dialect).read_request(surface, body_of(case))
    assert case["refuse"] in caught.value.message
    assert caught.value.param == case.get("param")
    assert caught.value.status == 400


def test_the_corpus_has_not_shrunk() -> None:
    assert len(list(cases("accepted.yaml"))) >= 110
    assert len(list(cases("refused.yaml"))) >= 110
