"""The schema reads a tree and reports every mismatch, each at its place."""

import os
from pathlib import Path

import pytest

from gateway.config.schema import Config, Key, Provider, Target
from gateway.config.tree import Node, parse
from gateway.config.walk import Walked, walk

HERE = Path("/etc/gateway")


def walked(text: str, **env: str) -> Walked:
    root, problems = parse(text, "f")
    assert root is not None
    assert not problems
    return walk(root, env, HERE)


def config(text: str, **env: str) -> Config:
    found = walked(text, **env)
    assert not found.problems
    assert found.config is not None
    return found.config


PROVIDER = "kind: openai, api_key: x"


def test_the_schema_decides_what_a_scalar_is() -> None:
    read = config("keys: [{id: 007, secret: 123, org: no, labels: {on: off}}]\nnode: 1.20")
    assert (read.keys[0].id, read.keys[0].org, read.keys[0].labels) == ("007", "no", {"on": "off"})
    assert read.keys[0].secret.reveal() == "123"
    assert read.node == "1.20"


def test_nothing_said_is_the_default() -> None:
    assert config("providers:\nlisten: ~\nroutes: null\nmax_body_bytes:") == config("{}")


def test_one_name_needs_no_brackets() -> None:
    read = config(f"providers: {{a: {{{PROVIDER}, dedicated_to: acme}}}}")
    assert read.providers["a"].dedicated_to == ("acme",)


def test_variables_are_replaced_in_any_value() -> None:
    read = config("listen: {port: '${PORT}'}\nregion: eu-${ZONE}", PORT="9000", ZONE="1")
    assert (read.listen.port, read.region) == (9000, "eu-1")


def test_target_defaults_are_json_as_written() -> None:
    read = config("models: {m: {targets: [{provider: p, model: m, defaults: {t: 0.5, s: '1', n: ~, l: [1, yes]}}]}}")
    assert read.models["m"].targets[0].defaults == {"t": 0.5, "s": "1", "n": None, "l": [1, "yes"]}


def test_paths_start_at_the_file_and_those_of_the_shell_at_the_shell() -> None:
    assert config("{}").state_dir == "/etc/gateway/state"
    assert config("state_dir: data").state_dir == "/etc/gateway/data"
    assert config("state_dir: /var/x").state_dir == "/var/x"
    root, _ = parse("state_dir: data", "--set")
    assert root is not None
    read = walk(root, {}, HERE).config
    assert read is not None
    assert read.state_dir == str(Path.cwd() / "data")


def test_a_link_in_a_path_is_kept_so_that_moving_it_renews_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "live").symlink_to(tmp_path / "v1")
    root, _ = parse("state_dir: live/x", "f")
    assert root is not None
    read = walk(root, {}, tmp_path).config
    assert read is not None
    assert read.state_dir == os.fspath(tmp_path / "live" / "x")


REPORTED = [
    ("[]", "", "must be a mapping with listen, admin"),
    ("listen: 1", "listen", "must be a mapping with host"),
    ("listen: {prot: 1}", "listen.prot", 'is not a setting; did you mean "port"?'),
    ("lisence: 1", "lisence", 'did you mean "listen"'),
    ("admin: {}", "admin", "`token` is missing: every admin needs one"),
    ("admin: {token: }", "admin", "`token` is missing"),
    ("keys: {}", "keys", "must be a list"),
    ("keys: [~]", "keys[0]", "is empty"),
    ("providers: []", "providers", "must be a mapping, as in"),
    ("models: {m: {targets: []}}", "models.m.targets", "give at least one"),
    ("listen: {port: [1]}", "listen.port", "must be a whole number, not a list"),
    ("admin: {token: {a: b}}", "admin.token", "must be a secret"),
    ("listen: {port: 70000}", "listen.port", "must be at most 65535 (is 70000)"),
    ("region: ${ZONE}", "region", "ZONE is not set"),
    ("keys: [{id: a, secret: x, rpm: 0}]", "keys[0].rpm", "must be at least 1"),
    ("routes: [{name: a, hedging: 5}]", "routes[0].hedging", "not enforced by this version: remove it"),
    ("policy: {durability: synced}", "policy", "not enforced by this version"),
    ("defaults: {relay: filter}", "defaults.relay", "not enforced by this version"),
    ("admin: {token: 'a b'}", "admin.token", "no HTTP header can carry"),
]


@pytest.mark.parametrize(("text", "path", "said"), REPORTED)
def test_mismatches_are_reported_at_their_path(text: str, path: str, said: str) -> None:
    problems = walked(text).problems
    assert len(problems) == 1
    assert said in str(problems[0])
    assert f": {path}: " in str(problems[0]) or not path


def test_secrets_never_enter_a_problem() -> None:
    text = """
        admin: {token: "sk hidden"}
        keys: [{id: a, secret: "sk hidden"}]
        providers:
          p: {kind: openai, api_key: "sk hidden", headers: {x-org: "sk-hidden\\a"}, proxy: "http://u:sk-hidden\\a@h"}
          q: {kind: openai, api_kay: sk-hidden}
    """
    problems = walked(text).problems
    assert len(problems) == 6
    assert "hidden" not in "".join(str(problem) for problem in problems)


def test_what_could_be_read_keeps_its_place_beside_what_could_not() -> None:
    read = walked("keys: [{id: a}, {id: b, secret: x}]\nproviders: {p: {kind: openai, idle_s: soon}}")
    assert [path for path, _ in read.of(Key)] == [("keys", 1)]
    assert read.of(Provider)[0][1].idle_s == 60
    assert read.of(Target) == []
    assert len(read.problems) == 2


def test_places_are_those_of_the_name_for_unknown_settings_and_of_the_value_for_bad_ones() -> None:
    problems = walked("listen:\n  prot: 1\n  port: x\n").problems
    assert sorted(str(problem).split(": ")[0] for problem in problems) == ["f:2:3", "f:3:9"]


def test_a_root_that_is_one_value_is_no_config() -> None:
    root: Node | None = parse("just text", "f")[0]
    assert root is not None
    assert walk(root, {}, HERE).config is None
