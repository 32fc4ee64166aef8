"""The first config passes the check, for every environment, and is for its owner only."""

import stat
from pathlib import Path

import pytest

from gateway.config.load import load
from gateway.config.starter import default_config, init

ENVIRONMENTS = [
    ({}, ["sim", "sim-claude"], "sim-echo", "openai"),
    ({"OPENAI_API_KEY": "k"}, ["openai"], "gpt-4o-mini", "openai"),
    ({"ANTHROPIC_API_KEY": "k"}, ["claude"], "claude-haiku-4-5", "anthropic"),
    ({"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k"}, ["openai", "claude"], "gpt-4o-mini", "openai"),
    ({"OPENAI_API_KEY": ""}, ["sim", "sim-claude"], "sim-echo", "openai"),
]


@pytest.mark.parametrize(("env", "providers", "model", "dialect"), ENVIRONMENTS)
def test_what_is_written_can_be_served(
    tmp_path: Path, env: dict[str, str], providers: list[str], model: str, dialect: str
) -> None:
    made = init(tmp_path / "gateway.yaml", env)
    config = load(made.path, (), env)
    assert list(config.providers) == providers
    assert (made.model, made.dialect) == (model, dialect)
    assert model in config.models
    assert [target.provider for target in config.models["*"].targets] == providers
    assert config.keys[0].secret.reveal() == made.key
    assert config.admin is not None
    assert config.admin.token.reveal() == made.admin_token
    assert config.listen.workers == 0
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600


def test_provider_keys_are_referred_to_and_never_written(tmp_path: Path) -> None:
    made = init(tmp_path / "g.yaml", {"OPENAI_API_KEY": "sk-hidden"})
    assert "sk-hidden" not in made.path.read_text()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text("mine")
    with pytest.raises(FileExistsError):
        init(path, {})
    assert path.read_text() == "mine"


def test_every_config_has_its_own_secrets(tmp_path: Path) -> None:
    one, other = init(tmp_path / "a", {}), init(tmp_path / "b", {})
    assert one.key != other.key
    assert one.admin_token != other.admin_token


def test_lines_fit_a_screen() -> None:
    assert max(len(line) for line in default_config({}, "gw-" + "x" * 43, "t" * 43).splitlines()) <= 120
