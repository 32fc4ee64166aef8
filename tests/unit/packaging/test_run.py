"""tools/run.py decides from the config alone whether a simulated provider is wanted, and where."""

from pathlib import Path
from typing import Any

import pytest

from tools.run import providers_in, sim_address


@pytest.mark.parametrize(
    ("providers", "address"),
    [
        ({"sim": {"base_url": "http://127.0.0.1:9100/v1"}}, ("127.0.0.1", 9100)),
        ({"openai": {}, "sim-anthropic": {"base_url": "http://localhost:9101"}}, ("localhost", 9101)),
        ({"sim": {"base_url": "http://[::1]:9100"}}, ("::1", 9100)),
        ({"sim": {"base_url": "http://192.0.2.1:9100"}}, None),  # somebody else's machine: not ours to start
        ({"sim": {"base_url": "http://127.0.0.1"}}, None),  # the privileged default port is none of ours
        ({"sim": {"base_url": "http://127.0.0.1:many"}}, None),
        ({"sim": {}}, None),
        ({"local": {"base_url": "http://127.0.0.1:9100"}}, None),
        ({}, None),
    ],
)
def test_a_loopback_provider_called_sim_is_started(providers: dict[str, Any], address: tuple[str, int] | None) -> None:
    assert sim_address(providers) == address


@pytest.mark.parametrize(
    "text",
    ["", "providers:", "providers: [sim]", "providers: {sim: 1}", "- sim", "a: [", "\x00", "7"],
)
def test_a_config_that_says_nothing_useful_is_left_to_the_gateway_to_explain(tmp_path: Path, text: str) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(text)
    assert providers_in(config) == {}
    assert providers_in(tmp_path / "missing.yaml") == {}


def test_providers_are_read_by_name(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text("providers: {sim: {kind: openai}, 7: {kind: openai}}")
    assert providers_in(config) == {"sim": {"kind": "openai"}, "7": {"kind": "openai"}}
