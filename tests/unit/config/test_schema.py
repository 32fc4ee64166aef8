"""Names, defaults and precedence that operators rely on."""

import os

import pytest

from gateway.config.schema import (
    BUILT_IN,
    Config,
    Journal,
    Key,
    Listen,
    Provider,
    Route,
    RouteSettings,
    Target,
    Timeouts,
)
from gateway.config.spec import settings, spec


def test_the_defaults_that_are_promised() -> None:
    config = Config()
    assert (config.listen.host, config.listen.port, config.admin) == ("127.0.0.1", 8080, None)
    assert (config.drain_s, config.stuck_s) == (30, 10)
    assert (config.max_body_bytes, config.spool_bytes, config.inline_bytes) == (33554432, 26214400, 262144)
    assert BUILT_IN.timeouts == Timeouts(connect_s=2, first_byte_s=60, first_content_s=600, idle_s=300, total_s=1800)
    assert BUILT_IN.hold_s == 10


def test_what_is_built_in_leaves_nothing_unsaid() -> None:
    for settings_of in (BUILT_IN, BUILT_IN.timeouts):
        assert settings_of is not None
        assert None not in [getattr(settings_of, name) for name in settings_of.__struct_fields__]


def test_what_the_journal_says_applies_where_defaults_say_nothing() -> None:
    config = Config(
        journal=Journal(durability="synced", on_failure="open"), defaults=RouteSettings(durability="written")
    )
    assert (config.route_defaults.durability, config.route_defaults.on_failure) == ("written", "open")
    assert (Config().route_defaults.durability, Config().route_defaults.on_failure) == ("written", "closed")


def test_timeouts_inherit_one_by_one() -> None:
    route, model = Timeouts(total_s=1), Timeouts(total_s=2, idle_s=3)
    assert route.over(model) == Timeouts(total_s=1, idle_s=3)
    assert route.over(None) == route
    assert Timeouts().over(BUILT_IN.timeouts) == BUILT_IN.timeouts


def test_workers_zero_is_one_per_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(6)))
    assert Listen().worker_count == 6
    assert Listen(workers=2).worker_count == 2


def test_a_config_is_replaced_and_never_edited() -> None:
    with pytest.raises(AttributeError):
        Config().node = "x"  # type: ignore[misc]


def test_no_setting_is_known_and_unknown_at_once() -> None:
    assert all(field.name not in ("policy", "hedging", "detectors") for _, field in settings(Config))


def test_unknown_fields_are_forbidden_in_every_struct() -> None:
    inner = [field.spec.item or field.spec for _, field in settings(Config)]
    structs = {spec(Config).struct, *(each.struct for each in inner if each.form == "struct")}
    assert {Provider, Target, Key, Route, Timeouts} < structs
    assert all(struct.__struct_config__.forbid_unknown_fields for struct in structs)
    assert all(struct.__struct_config__.frozen for struct in structs)
