"""From a file to values, or to everything that is wrong with it."""

from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.load import Document, load, read, read_text, realise, skim
from gateway.config.problems import ConfigProblems
from gateway.config.schema import Config

GOOD = """
listen: {port: 8080, workers: 2}
admin: {token: "${TOKEN}"}
providers: {sim: {kind: openai, base_url: "http://127.0.0.1:9100/v1", api_key: "${SIM}"}}
models: {sim-echo: {targets: [{provider: sim, model: sim-echo}]}, "gpt-4.1": {targets: [{provider: sim, model: m}]}}
keys: [{id: demo, secret: gw-x, org: acme}]
"""
ENV = {"TOKEN": "t" * 16, "SIM": "s"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "gateway.yaml"
    file.write_text(GOOD)
    return file


def problems(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigProblems) as raised:
        load(path, overrides, ENV)
    return [str(problem).replace(str(path), "f") for problem in raised.value.problems]


def test_a_file_becomes_a_config(path: Path) -> None:
    config = load(path, (), ENV)
    assert config.listen.workers == 2
    assert config.admin is not None
    assert config.admin.token.reveal() == "t" * 16
    assert config.state_dir == str(path.parent / "state")


def test_set_overrides_any_value(path: Path) -> None:
    config = load(path, ["listen.port=9000", 'models."gpt-4.1".targets[0].weight=5', "keys[0].org=other"], ENV)
    assert config.listen.port == 9000
    assert config.models["gpt-4.1"].targets[0].weight == 5
    assert config.keys[0].org == "other"


def test_everything_is_said_at_once_and_where(path: Path) -> None:
    path.write_text("listen: {prot: 1}\nproviders:\n  p: {kind: opnai}\n")
    found = problems(path, "listen.workers=x", "nonsense")
    assert [line.split(": ")[0] for line in found] == ["f:1:10", "f:3:6", "f:3:13", "--set", "--set"]


def test_what_is_no_config_at_all(path: Path) -> None:
    said = {
        "": "f: is empty: `gateway init`",
        "# nothing\n": "f: is empty",
        "a: [": "f:2:1: is not YAML",
        "just text": "f:1:1: must be a mapping",
    }
    for text, expected in said.items():
        path.write_text(text)
        assert problems(path)[0].startswith(expected), text
    path.write_bytes(b"a: 1\nb: \xff\n")
    assert problems(path) == ["f:2:4: is not UTF-8 text"]
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load(path, (), ENV).listen.workers == 2


def test_a_file_that_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    assert "cannot be read: No such file or directory; `gateway init`" in problems(tmp_path / "missing")[0]


def test_a_document_gives_the_same_config_elsewhere_and_holds_neither_keys_nor_secrets(path: Path) -> None:
    config, document = read(path, ["drain_s=7"], ENV)
    packed = msgspec.msgpack.encode(document)
    assert b"${SIM}" in packed
    assert b"gw-x" not in packed
    again = realise(msgspec.msgpack.decode(packed, type=Document), ENV)
    assert again == msgspec.structs.replace(config, keys=())
    with pytest.raises(ConfigProblems, match="SIM is not set"):
        realise(document, {"TOKEN": "t" * 16})


def test_skimming_needs_no_secret_and_no_valid_config(path: Path) -> None:
    path.write_text(GOOD + "nonsense: 1\n")
    assert skim(path, ["state_dir=/var/x"], {}) == ("/var/x", ("demo",))


@pytest.mark.parametrize("text", ["", "a: [", "text", "state_dir: [1]"])
def test_skimming_still_needs_a_readable_state_dir(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigProblems):
        skim(path, (), {})


def outcome(text: str, *overrides: str) -> Config | None:
    try:
        return read_text(text, "f", Path("/"), overrides, {}).config
    except ConfigProblems as error:
        if not error.problems:
            raise
        return None


@given(st.text())
def test_any_text_loads_or_is_explained(text: str) -> None:
    outcome(text)


NAMES = st.sampled_from([*Config.__struct_fields__, "provider", "kind", "targets", "id", "secret", "a", "*"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | NAMES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)


@given(VALUES, st.lists(st.text(max_size=20), max_size=2))
def test_any_structure_loads_or_is_explained(value: object, overrides: list[str]) -> None:
    outcome(yaml.safe_dump(value, allow_unicode=True), *overrides)
