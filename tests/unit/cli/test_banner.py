"""The banner says where things are; the request to paste holds a key that would be let in, or none is printed."""

import io
import json
import shlex
from pathlib import Path

import pytest

from gateway.cli import banner
from gateway.config.load import read_text
from gateway.config.revocations import Revocations
from gateway.config.schema import Config

HASHED = "sha256:" + "0" * 64
PROVIDERS = "providers: {sim: {kind: openai, api_key: k}, claude: {kind: anthropic, api_key: k}}\n"
TARGET = "{targets: [{provider: sim, model: x}]}"
MODELS = f'models: {{"gpt-*": {TARGET}, first: {TARGET}, second: {TARGET}}}\n'
NOTHING = "no request to paste"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def config_of(directory: Path, text: str) -> Config:
    return read_text(f"state_dir: ./state\n{PROVIDERS}{text}", "gateway.yaml", directory, (), {}).config


def shown(config: Config, *, with_curl: bool, out: io.StringIO | None = None) -> str:
    out = io.StringIO() if out is None else out
    banner.show(config, 8080, 8081, with_curl=with_curl, out=out)
    return out.getvalue()


def keys(*entries: str) -> str:
    return f"keys: [{', '.join(entries)}]\n"


def request(text: str) -> tuple[str, str, dict[str, object]]:
    """The pasted command as a shell reads it: its URL, its credential, its body."""
    words = shlex.split(text[text.index("curl ") :].replace("\\\n", ""))
    credential = next(word for word in words if word.startswith("authorization: "))
    return words[1], credential.removeprefix("authorization: Bearer "), json.loads(words[words.index("-d") + 1])


def key_in(text: str) -> str | None:
    return None if NOTHING in text else request(text)[1]


@pytest.mark.parametrize("with_curl", [False, True])
def test_the_request_is_printed_only_where_it_was_asked_for(tmp_path: Path, *, with_curl: bool) -> None:
    config = config_of(tmp_path, MODELS + keys("{id: a, secret: gw-a}"))
    assert ("gw-a" in shown(config, with_curl=with_curl)) == with_curl
    assert ("gw-a" in shown(config, with_curl=with_curl, out=Terminal())) == with_curl
    assert ("Sluice" in shown(config, with_curl=with_curl)) == with_curl  # a log wants no banner
    assert "Sluice" in shown(config, with_curl=with_curl, out=Terminal())


def test_the_request_is_one_a_shell_can_read(tmp_path: Path) -> None:
    config = config_of(tmp_path, MODELS + keys('{id: a, secret: "gw-it\'s"}'))
    url, credential, body = request(shown(config, with_curl=True))
    assert url == "http://127.0.0.1:8080/v1/chat/completions"
    assert credential == "gw-it's"
    assert body == {"model": "first", "messages": [{"role": "user", "content": "Say hello"}]}


def test_a_model_of_anthropics_is_asked_in_its_dialect(tmp_path: Path) -> None:
    config = config_of(
        tmp_path, "models: {haiku: {targets: [{provider: claude, model: x}]}}\n" + keys("{id: a, secret: gw-a}")
    )
    url, _, body = request(shown(config, with_curl=True))
    assert url.endswith("/v1/messages")
    assert body["max_tokens"] == 256


@pytest.mark.parametrize(
    "unusable",
    [
        "{id: a, secret: gw-a, disabled: true}",
        '{id: a, secret: gw-a, expires_at: "2001-01-01T00:00:00Z"}',
        "{id: revoked, secret: gw-a}",
        f'{{id: a, secret: "{HASHED}"}}',
        "{id: a, secret: gw-a, models: [third]}",
        '{id: a, secret: gw-a, models: ["gpt-*"]}',
    ],
    ids=["disabled", "expired", "revoked", "hashed", "for no model here", "for a pattern only"],
)
def test_a_key_that_would_be_refused_is_passed_over(tmp_path: Path, unusable: str) -> None:
    Revocations(tmp_path / "state").add("revoked", 0)
    alone = config_of(tmp_path, MODELS + keys(unusable))
    followed = config_of(tmp_path, MODELS + keys(unusable, '{id: b, secret: gw-b, expires_at: "2999-01-01T00:00:00Z"}'))
    assert NOTHING in shown(alone, with_curl=True)
    assert "gw-a" not in shown(alone, with_curl=True)
    assert key_in(shown(followed, with_curl=True)) == "gw-b"


def test_the_model_is_one_that_the_key_may_use(tmp_path: Path) -> None:
    config = config_of(tmp_path, MODELS + keys('{id: a, secret: gw-a, models: ["sec*"]}'))
    assert request(shown(config, with_curl=True))[2]["model"] == "second"


def test_without_keys_or_models_there_is_nothing_to_paste(tmp_path: Path) -> None:
    assert NOTHING in shown(config_of(tmp_path, MODELS), with_curl=True)
    assert NOTHING in shown(config_of(tmp_path, keys("{id: a, secret: gw-a}")), with_curl=True)


def test_revocations_that_cannot_be_read_may_name_any_key(tmp_path: Path) -> None:
    (tmp_path / "state" / "revocations").mkdir(parents=True)
    config = config_of(tmp_path, MODELS + keys("{id: a, secret: gw-a}"))
    assert NOTHING in shown(config, with_curl=True)


def test_an_address_that_means_every_one_is_shown_as_one_to_call(tmp_path: Path) -> None:
    text = 'listen: {host: "::"}\n' + MODELS + keys("{id: a, secret: gw-a}")
    assert request(shown(config_of(tmp_path, text), with_curl=True))[0].startswith("http://[::1]:8080/")


def test_many_models_are_cut_short(tmp_path: Path) -> None:
    named = ", ".join(f"m{number}: {TARGET}" for number in range(9))
    text = shown(config_of(tmp_path, f"models: {{{named}}}\n"), with_curl=False, out=Terminal())
    assert "m7 …" in text
    assert "m8" not in text
