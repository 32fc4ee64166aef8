"""`gateway check` says everything that is wrong, or what a node would do."""

import io
from pathlib import Path

import pytest

from gateway.config.check import FAILED, PASSED, Question, check, question
from gateway.config.revocations import Revocations
from gateway.config.schema import Config

TEXT = """
listen: {host: "::1", port: 9000, workers: 2}
admin: {token: "0123456789abcdef-hidden"}
trusted_proxies: [10.0.0.0/8]
providers:
  p: {kind: openai, base_url: "http://127.0.0.1:1/v1", api_key: sk-hidden}
  q: {kind: anthropic, credential: caller, dedicated_to: acme}
models:
  m: {targets: [{provider: p, model: x, weight: 2}, {provider: p, model: y}], fallbacks: [n]}
  n: {targets: [{provider: p, model: z}]}
keys: [{id: a, secret: gw-hidden}, {id: b, secret: gw-hidden2, disabled: true}]
routes:
  - {name: agents, match: {path: /v1/responses, labels: {app: agent}}, timeouts: {total_s: 3600}, max_attempts: 5}
defaults: {hold_s: 3, timeouts: {idle_s: 99}}
teams: {core: {rpm: 5, usd_per_month: 0.25}}
limits:
  rules:
    - {name: r, per: [key, model], tokens: 5, every: minute, shadow: true}
    - {name: b, usd: 0.5, every: day}
    - {name: slots, per: [org], in_flight: 4}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "gateway.yaml"
    file.write_text(TEXT)
    return file


def run(path: Path, asked: Question | None = None) -> tuple[int, str]:
    out = io.StringIO()
    code = check(path, (), out, asked, lambda config, _asked: config.routes[0].name, {})
    return code, out.getvalue()


def test_the_summary_shows_what_a_node_would_do_and_no_secret(path: Path) -> None:
    code, said = run(path)
    assert code == PASSED
    assert "hidden" not in said
    for line in (
        "listen   http://[::1]:9000, 2 workers",
        "proxies  10.0.0.0/8",
        "p  openai     http://127.0.0.1:1/v1  key *** ",
        "q  anthropic  its public address     the caller's own key",
        "dedicated to acme",
        "m  p/x (weight 2), p/y (weight 1), then n",
        "n  p/z",
        "2 keys  1 disabled",
        "counted    in this node's memory, domain main",
        "r          per key, model",
        "tokens 5 every minute, shadow",
        "b          per gateway",
        "usd 0.5 every day (budget)",
        "slots      per org",
        "in_flight 4",
        "team core",
        "rpm 5, usd_per_month 0.25",
    ):
        assert line in said


def test_routes_are_shown_in_order_with_what_holds_for_them_and_end_with_the_implicit_one(path: Path) -> None:
    routes = run(path)[1].partition("routes, first match wins\n")[2].splitlines()
    assert len(routes) == 2
    assert routes[0].startswith(
        "  1  agents   path /v1/responses, label app=agent  relay tap, max_attempts 5, hold_s 3"
    )
    assert "idle_s 99, total_s 3600" in routes[0]
    assert routes[1].startswith("  2  default  everything")
    assert "max_attempts 3" in routes[1]
    assert "idle_s 99, total_s 1800" in routes[1]


def test_a_route_s_class_of_data_is_shown(path: Path) -> None:
    path.write_text(TEXT.replace("name: agents,", "name: agents, data_class: secret,"))
    agents, default = run(path)[1].partition("routes, first match wins\n")[2].splitlines()
    assert "label app=agent  data_class secret, relay tap" in agents
    assert "data_class" not in default


def test_which_route_wins_is_asked_of_the_matcher(path: Path) -> None:
    asked: list[tuple[Config, Question]] = []
    out = io.StringIO()

    def winner(config: Config, question: Question) -> str:
        asked.append((config, question))
        return "agents"

    wanted = question("/v1/responses", "m", ["app=agent", "team=a=b"])
    assert check(path, ["node=x"], out, wanted, winner, {}) == PASSED
    assert asked[0][0].node == "x"
    assert asked[0][1] == Question("/v1/responses", "m", {"app": "agent", "team": "a=b"})
    assert "/v1/responses with model m and labels app=agent, team=a=b takes route agents" in out.getvalue()


@pytest.mark.parametrize("label", ["app", "=x", ""])
def test_a_label_is_name_and_value(label: str) -> None:
    with pytest.raises(ValueError, match="name=value"):
        question("/", "", [label])


def test_problems_are_counted_and_fail_the_check(path: Path) -> None:
    path.write_text("listen: {prot: 1}")
    code, said = run(path)
    assert code == FAILED
    assert said == f'{path}:1:10: listen.prot: is not a setting; did you mean "port"?\n1 problem\n'
    path.write_text("a: 1\nb: 2")
    assert run(path)[1].endswith("\n2 problems\n")


def test_a_configured_key_that_was_revoked_is_pointed_out(path: Path) -> None:
    Revocations(path.parent / "state").add("a", 1)
    assert "a       is revoked for good" in run(path)[1]


def test_an_empty_config_has_no_admin_port_and_says_none(path: Path) -> None:
    path.write_text("{}")
    said = run(path)[1]
    assert "admin    not served" in said
    assert "models\n  (none)" in said
