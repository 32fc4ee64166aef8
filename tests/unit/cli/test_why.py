"""`gateway why`: what its words mean, and which are wanted."""

import argparse

import pytest

from gateway.cli import why, why_show


def given(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    why.add_why(parser.add_subparsers())
    return parser.parse_args(["why", *words])


def test_words_and_what_they_are_without() -> None:
    plain = vars(given("--key", "ann"))
    assert {name: value for name, value in plain.items() if value and name != "run"} == {
        "key": "ann",
        "config": "gateway.yaml",
    }
    full = given(
        *("--key", "ann", "--model", "m", "--tokens", "5", "--output-tokens", "6", "--path", "/v1/messages"),
        *("--end-user", "u", "--provider", "p", "--json", "--set", "admin.port=1"),
    )
    assert (full.model, full.tokens, full.output_tokens, full.path) == ("m", "5", "6", "/v1/messages")
    assert (full.end_user, full.provider, full.json, full.set) == ("u", "p", True, ["admin.port=1"])


def test_a_key_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        given("--model", "m")
    assert ended.value.code == 2
    assert "--key" in capsys.readouterr().err


def test_what_it_does_is_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(why_show, "run", lambda said: 7 if said.key == "ann" else 0)
    asked = given("--key", "ann")
    assert asked.run(asked) == 7
