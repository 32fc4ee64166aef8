"""Rules pick requests in order and by count; fixed answers keep their bytes; mistakes name the rule."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.sim.script import BadScript, build, load, split_events

FACTS = {"path": "/v1/chat/completions", "model": "gpt-4o", "prompt": "the weather", "method": "POST"}


@pytest.mark.parametrize(
    ("nth", "taken"),
    [
        (None, [1, 2, 3, 4, 5, 6]),
        (2, [2]),
        ([1, 3], [1, 3]),
        ("3+", [3, 4, 5, 6]),
        ("every 3", [3, 6]),
    ],
)
def test_nth_chooses_among_the_matches(nth: object, taken: list[int]) -> None:
    script = build({"rules": [{"match": {"model": "gpt-*", "nth": nth}}]})
    assert [number for number in range(1, 7) if script.match(FACTS)] == taken


def test_only_requests_that_fit_are_counted() -> None:
    script = build({"rules": [{"match": {"prompt": "*weather*", "nth": 2}}]})
    assert script.match(FACTS) is None
    assert script.match({**FACTS, "prompt": "else"}) is None
    assert script.match(FACTS) is not None


def test_the_first_rule_that_takes_it_wins() -> None:
    script = build({"rules": [{"match": {"nth": 1}, "behave": "status=500"}, {"behave": {"status": 501}}]})
    found = [script.match(FACTS), script.match(FACTS)]
    assert [rule.settings if rule else None for rule in found] == [{"status": 500}, {"status": 501}]


@pytest.mark.parametrize(
    ("document", "where"),
    [
        ([], "script"),
        ({"rule": []}, "unknown rule"),
        ({"rules": {}}, "not a list"),
        ({"rules": [{"mach": {}}]}, "rule 1: unknown mach"),
        ({"rules": [{}, {"match": {"pth": "x"}}]}, "rule 2: match: unknown pth"),
        ({"rules": [{"match": {"nth": "often"}}]}, "nth is 'often'"),
        ({"rules": [{"behave": "stauts=1"}]}, "stauts"),
        ({"rules": [{"reply": {"body": "", "raw": ""}}]}, "only one of body, raw"),
        ({"rules": [{"reply": {"status": 99}}]}, "status is 99"),
        ({"rules": [{"reply": {"file": "/etc/hostname"}}]}, "file is only for scripts read from disk"),
        ({"rules": [{"reply": {"raw": "€"}}]}, "one character a byte"),
        ({"defaults": "nope"}, "defaults: unknown behaviour"),
    ],
)
def test_a_mistake_names_its_place(document: object, where: str) -> None:
    with pytest.raises(BadScript, match=where):
        build(document)


@given(st.lists(st.sampled_from([b"data: x", b"\n", b"\r", b"\r\n"]), max_size=30))
def test_events_joined_are_the_bytes(parts: list[bytes]) -> None:
    body = b"".join(parts)
    assert b"".join(split_events(body)) == body


def test_events_end_behind_each_empty_line() -> None:
    assert list(split_events(b"a\n\nb\r\n\r\nc\r\rd")) == [b"a\n\n", b"b\r\n\r\n", b"c\r\r", b"d"]


def test_a_file_is_found_beside_the_script(tmp_path: Path) -> None:
    (tmp_path / "answer.sse").write_bytes(b"data: 1\n\ndata: 2\n\n")
    path = tmp_path / "script.yaml"
    path.write_text("defaults: {ping: 2}\nrules: [{reply: {file: answer.sse}}]", encoding="utf-8")
    script = load(path)
    rule = script.match(FACTS)
    assert rule is not None
    assert rule.canned is not None
    assert [event.data for event in rule.canned.reply().body] == [b"data: 1\n\n", b"data: 2\n\n"]  # type: ignore[union-attr]
    assert script.defaults == {"ping": 2}


def test_what_is_not_yaml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "script.yaml"
    path.write_text("rules: [", encoding="utf-8")
    with pytest.raises(BadScript, match="not YAML"):
        load(path)
