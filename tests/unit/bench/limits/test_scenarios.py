"""Every scenario is a config that the gateway takes, and a provider's behaviour that uses what it says."""

from pathlib import Path

import pytest
import yaml

from bench.limits import scenarios
from bench.limits.scenarios import BUDGET_RULE, SCENARIOS, SLOTS_RULE, Scenario
from bench.sim.faults import parse
from bench.speed.targets import Gateway, Place, overlaid
from gateway.config.limits import SHORT_FORMS, Limits
from gateway.config.load import load
from gateway.config.schema import Config

PLACE = Place(core=0, upstream_port=9000, folder=Path("/nowhere"), descriptors=20_000)
SECRET = "gw-" + "s" * 43


def config_of(scenario: Scenario, folder: Path) -> Config:
    settings = overlaid(Gateway().config(PLACE, 8000, SECRET), scenario.settings("redis://127.0.0.1:6379/0", SECRET))
    path = folder / "gateway.yaml"
    path.write_text(yaml.safe_dump(settings))
    return load(path)


@pytest.mark.parametrize("scenario", [s for s in SCENARIOS if not s.slices or "slices" in Limits.__struct_fields__])
def test_a_scenario_is_a_config_with_the_rules_it_names(scenario: Scenario, tmp_path: Path) -> None:
    config = config_of(scenario, tmp_path)
    allowance = config.keys[0].allowance
    short = {f"key.{name}" for name in SHORT_FORMS if getattr(allowance, name, None) is not None}
    names = {rule.name for rule in config.limits.rules} | short
    assert names == {BUDGET_RULE, scenario.rate_rule} | (set() if scenario.slices else {SLOTS_RULE})
    assert (config.limits.store_url is not None) is scenario.store
    assert config.limits.on_store_failure == "closed"
    assert config.listen.workers == scenario.workers


def test_every_resource_engine_and_kill_has_its_row() -> None:
    told = {(s.resource, s.store, s.nodes, s.used, s.kills) for s in SCENARIOS if not s.slices}
    assert {("requests", False, 1, 0.0, ""), ("requests", True, 1, 0.0, ""), ("requests", True, 3, 0.0, "")} <= told
    assert {("tokens", store, 1, used, "") for store in (False, True) for used in (0.2, 3.0)} <= told
    assert {kills for *_, kills in told} == {"", "worker", "node", "store"}
    assert any(scenario.slices for scenario in SCENARIOS)


@pytest.mark.parametrize(("name", "usage"), [("tokens-fifth-table", 600), ("tokens-triple-store", 900)])
def test_usage_is_the_share_of_the_reservation_that_is_said(name: str, usage: int) -> None:
    settings = parse(scenarios.BY_NAME[name].sim)
    tokens, reasoning = (int(str(settings[word])) for word in ("tokens", "reasoning"))
    assert tokens + reasoning + scenarios.PROMPT_TOKENS // 2 == usage


def test_the_rate_is_a_second_s_part_of_a_minute() -> None:
    assert scenarios.BY_NAME["requests-table"].rate.per_s == 10
    assert scenarios.BY_NAME["tokens-fifth-table"].rate.per_s == 50_000


def test_names_are_told_apart() -> None:
    assert len(scenarios.BY_NAME) == len(SCENARIOS)
