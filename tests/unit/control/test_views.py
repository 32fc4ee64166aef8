"""What the admin API shows is what is configured, without anything that could be used."""

import json
from pathlib import Path

import pytest

from gateway.config.keys import KeyRecord
from gateway.config.load import load
from gateway.config.schema import Config
from gateway.control import views
from gateway.nodestate import SlotPhase
from tests.fakes.control_context import CONFIG, fake_context


@pytest.fixture
def config(tmp_path: Path) -> Config:
    file = tmp_path / "gateway.yaml"
    file.write_text(CONFIG)
    return load(file)


def test_targets_name_what_serves_a_model_and_what_came_of_it(config: Config) -> None:
    shown = views.targets(config, {("big/large-1", "ok"): 5, ("big/large-1", "upstream_reset"): 1, ("big/*", "ok"): 2})
    assert shown["providers"] == [
        {
            "name": "big",
            "kind": "openai",
            "base_url": "http://127.0.0.1:1/v1",
            "credential": "own",
            "dedicated_to": [],
        }
    ]
    assert shown["models"] == [
        {
            "model": "large",
            "targets": [{"target": "big/large-1", "weight": 1, "attempts": {"ok": 5, "upstream_reset": 1}}],
            "fallbacks": [],
        },
        {
            "model": "open/*",
            "targets": [{"target": "big/*", "weight": 2, "attempts": {"ok": 2}}],
            "fallbacks": ["large"],
        },
    ]


def test_no_secret_is_shown(config: Config) -> None:
    text = json.dumps([views.targets(config, {}), views.routes(config)])
    assert "provider-secret" not in text
    assert "Secret" not in text


RECORDS = [KeyRecord(digest=b"d" * 32, id=f"k{number}", expires_ms=number) for number in range(5)]


@pytest.mark.parametrize(
    ("after", "limit", "ids", "following"),
    [
        (0, 2, ["k0", "k1"], 2),
        (2, 2, ["k2", "k3"], 4),
        (4, 2, ["k4"], None),
        (3, 2, ["k3", "k4"], None),
        (9, 2, [], None),
    ],
)
def test_keys_come_in_pages(after: int, limit: int, ids: list[str], following: int | None) -> None:
    page = views.keys(RECORDS, set(), after, limit)
    assert [key["id"] for key in page["keys"]] == ids
    assert page["next"] == following


def test_a_key_shows_everything_but_its_digest() -> None:
    record = KeyRecord(
        b"d" * 32,
        "k",
        "acme",
        "search",
        "ann",
        {"app": "x"},
        ("a/*",),
        disabled=True,
        expires_ms=7,
        role="analyst",
        data_class="internal",
    )
    (shown,) = views.keys([record], {"k"}, 0, 1)["keys"]
    assert shown == {
        "id": "k",
        "org": "acme",
        "team": "search",
        "user": "ann",
        "role": "analyst",
        "labels": {"app": "x"},
        "data_class": "internal",
        "models": ["a/*"],
        "disabled": True,
        "revoked": True,
        "expires_ms": 7,
    }


def test_routes_come_in_order_with_the_limits_that_hold(config: Config) -> None:
    agents, default = views.routes(config)
    assert (agents["name"], agents["match"]["path"], agents["timeouts"]["total_s"]) == ("agents", "/v1/responses", 3600)
    assert (default["name"], default["timeouts"]["total_s"], default["max_attempts"]) == ("default", 1800, 3)
    assert (agents["data_class"], default["data_class"]) == ("secret", "")


def test_workers_and_their_states(tmp_path: Path) -> None:
    context = fake_context(tmp_path)
    context.worker(2, SlotPhase.STARTING)
    context.state.slot(1).end()
    now_ns = context.state.slot(0).beat_ns + 5_000_000
    first, second = views.workers(context.state, now_ns)
    assert first == {"slot": 0, "pid": 1000, "state": "ready", "generation": 1, "heartbeat_ms": 5}
    assert (second["slot"], second["state"]) == (2, "starting")
    assert dict(views.worker_counts(context.state)) == {"starting": 1, "ready": 1, "draining": 0}
    context.close()
