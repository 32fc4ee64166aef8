"""The small commands: what they print and end with, on the files they are given."""

import json
from argparse import Namespace
from pathlib import Path

import pytest

from gateway.cli import commands
from gateway.config.load import load
from gateway.config.revocations import Revocations
from gateway.control import client

CONFIG = """
admin: {port: 0, token: "0123456789abcdef"}
providers: {one: {kind: openai, api_key: sk-hidden}}
models: {gpt: {targets: [{provider: one, model: gpt-1}]}}
keys: [{id: demo, secret: gw-hidden}]
routes:
  - {name: agents, match: {path: /v1/responses, labels: {app: agent}}}
  - {name: mini, match: {model: "*mini"}}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "gateway.yaml"
    file.write_text(CONFIG.replace('"*mini"', '"gpt-m*"'))
    return file


def given(path: Path, **more: object) -> Namespace:
    return Namespace(**{"config": str(path), "set": [], "quiet": False, "route": None, **more})


# --- check ----------------------------------------------------------------------------------------------------------


def test_check_says_what_a_config_does(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.run_check(given(path)) == 0
    said = capsys.readouterr().out
    assert "agents" in said
    assert "hidden" not in said


@pytest.mark.parametrize(
    ("words", "route"),
    [
        (["/v1/responses", "gpt", "app=agent"], "agents"),
        (["/v1/responses", "gpt"], "default"),
        (["/v1/chat/completions", "gpt-mini"], "mini"),
        (["app=agent", "/v1/responses"], "agents"),
    ],
)
def test_check_says_which_route_wins(
    path: Path, words: list[str], route: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.run_check(given(path, route=words)) == 0
    assert f"takes route {route}\n" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["=x"], ["/v1/responses", "gpt", "=x"]])
def test_a_question_that_makes_no_sense(path: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.run_check(given(path, route=words)) == 2
    assert capsys.readouterr().err.startswith("gateway: ")


def test_a_bad_config_ends_with_1_loudly_or_not(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text("modles: {}\n")
    assert commands.run_check(given(path)) == 1
    loud = capsys.readouterr()
    assert commands.run_check(given(path, quiet=True)) == 1
    quiet = capsys.readouterr()
    for said in (loud.out + loud.err, quiet.err):
        assert "modles" in said
        assert "models" in said, "what was meant"


def test_a_good_config_is_quiet_when_asked_to_be(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.run_check(given(path, quiet=True)) == 0
    assert capsys.readouterr() == ("", "")


# --- init -----------------------------------------------------------------------------------------------------------


def test_init_writes_a_config_that_loads_and_never_over_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "new.yaml"
    assert commands.run_init(Namespace(path=str(file))) == 0
    config = load(str(file))
    said = capsys.readouterr().out
    assert config.keys[0].secret.reveal() not in said
    before = file.read_text()
    assert commands.run_init(Namespace(path=str(file))) == 1
    assert "exists already" in capsys.readouterr().err
    assert file.read_text() == before


def test_init_where_nothing_can_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.run_init(Namespace(path=str(tmp_path / "no" / "where.yaml"))) == 1
    assert "cannot be written" in capsys.readouterr().err


# --- keys -----------------------------------------------------------------------------------------------------------


def test_a_new_key_and_its_hash(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.run_keys_new(Namespace()) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    secret, hashed = lines["key"].strip(), lines["hash"].strip()
    assert secret.startswith("gw-")
    assert commands.run_keys_hash(Namespace(secret=secret)) == 0
    assert capsys.readouterr().out.strip() == hashed
    assert commands.run_keys_hash(Namespace(secret=hashed)) == 1


def test_a_key_is_revoked_on_disk(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.run_keys_revoke(given(path, id="demo", force=False)) == 0
    assert "is revoked" in capsys.readouterr().out
    assert "demo" in Revocations(str(path.parent / "state")).read()


def test_an_unknown_key_is_revoked_by_force_only(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.run_keys_revoke(given(path, id="dmeo", force=False)) == 1
    assert "demo" in capsys.readouterr().out, "what was meant"
    assert commands.run_keys_revoke(given(path, id="dmeo", force=True)) == 0


# --- targets --------------------------------------------------------------------------------------------------------


def test_targets_come_from_the_config_when_nothing_runs(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.run_targets(given(path)) == 0
    said = capsys.readouterr()
    assert "gpt-1" in json.dumps(json.loads(said.out))
    assert "no gateway answers" in said.err
    assert "hidden" not in said.out


def test_targets_of_a_running_node_are_its_own_word(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "targets", lambda _config: client.Targets({"live": 1}, live=True))
    assert commands.run_targets(given(path)) == 0
    said = capsys.readouterr()
    assert (json.loads(said.out), said.err) == ({"live": 1}, "")


def test_targets_that_are_refused(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_config: object) -> client.Targets:
        raise client.AdminRefused("another token")

    monkeypatch.setattr(client, "targets", refuse)
    assert commands.run_targets(given(path)) == 1
    assert "another token" in capsys.readouterr().err


def test_targets_of_a_bad_config(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text("models: 3\n")
    assert commands.run_targets(given(path)) == 1
    assert "models" in capsys.readouterr().err
