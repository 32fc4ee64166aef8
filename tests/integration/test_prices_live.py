"""Published prices on a running gateway: there from the first request, and those of the package that is installed.

A stand-in of the package lies before the real one, so that a test says what it publishes, upgrades it, breaks it or
takes it away. What a request cost is read from the metrics, and whether it has a price from a key that is limited in
USD: without one it is refused.
"""

import hashlib
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.config.snapshot import SnapshotStore
from gateway.control.pricing import named
from tests.fakes.gateway_node import KEY, GatewayNode, chat_body, running

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
PAYER = "gw-payer" + "0" * 38
CONFIG: dict[str, Any] = {
    "keys": [{"id": "payer", "secret": PAYER, "org": "acme", "usd_per_month": 100}, {"id": "demo", "secret": KEY}]
}
HEADER_BYTES = 8 + 32
DATA = """\
from decimal import Decimal
from types import SimpleNamespace as Said

def get_snapshot():
    usd = Said(input_mtok=Decimal("{taken}"), output_mtok=Decimal("{given}"))
    model = Said(id="m", match=Said(equals="upstream-name"), prices=usd, context_window=1000)
    return Said(providers=[Said(id="openai", api_pattern="https://nowhere", provider_match=None,
                                fallback_model_providers=None, models=[model])])
"""


class Package:
    """The stand-in; the first version is installed at once."""

    def __init__(self, directory: Path) -> None:
        self.code = directory / "genai_prices"
        self.info = directory / "genai_prices-0.dist-info"
        self.code.mkdir()
        self.info.mkdir()
        self.install("1.0", 2, 4)

    def install(self, version: str, taken: float, given: float) -> None:
        """Publish USD per million tokens of prompts and answers."""
        shutil.rmtree(self.code / "__pycache__", ignore_errors=True)
        (self.code / "__init__.py").write_text(f"__version__ = {version!r}\n")
        (self.code / "data_snapshot.py").write_text(DATA.format(taken=taken, given=given))
        self._told(f"Version: {version}\n")

    def break_(self, version: str) -> None:
        """An installation that cannot be imported."""
        (self.code / "__init__.py").write_text("raise ImportError('half installed')\n")
        self._told(f"Version: {version}\n")

    def remove(self) -> None:
        """No version is installed: the files stay, so that the real package behind them is not found."""
        self._told("")

    def _told(self, version: str) -> None:
        (self.info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: genai-prices\n{version}")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # two versions may be written within one second
    return Package(tmp_path)


def store_of(node: GatewayNode) -> SnapshotStore:
    return SnapshotStore(node.directory / "state")


def prices_of(node: GatewayNode) -> str:
    return named(store_of(node).prices())


def generations(node: GatewayNode) -> set[int]:
    """What every process uses."""
    status = node.admin("/v1/status").json
    return {status["generation"], *(worker["generation"] for worker in status["workers"])}


def reload(node: GatewayNode, generation: int) -> None:
    """Reload, and wait until every process uses the snapshot that comes of it."""
    os.kill(node.pid, signal.SIGHUP)
    node.until(lambda: generations(node) == {generation}, "every process to follow")


def charged(node: GatewayNode) -> float:
    return node.metrics("gateway_cost_microusd_total", model="renamed")


def costs(node: GatewayNode, taken: int, given: int) -> None:
    """One request costs this much: USD per million tokens are micro-USD a token."""
    before = charged(node)
    answer = node.post(CHAT, chat_body("renamed"), key=PAYER)
    assert answer.status == 200, answer.body
    usage = answer.json["usage"]
    due = before + usage["prompt_tokens"] * taken + usage["completion_tokens"] * given
    assert min(usage["prompt_tokens"], usage["completion_tokens"]) > 0
    node.until(lambda: charged(node) == due, f"{due} micro-USD")


def refused(node: GatewayNode) -> bool:
    answer = node.post(CHAT, chat_body("renamed"), key=PAYER)
    return answer.status == 403 and answer.json["error"]["code"] == "model_not_priced"


@pytest.mark.usefixtures("package")
def test_the_first_request_of_a_new_node_has_its_price() -> None:
    with running(CONFIG, workers=2) as node:
        costs(node, 2, 4)
        assert generations(node) == {1}
        assert re.search(r"the prices of genai-prices 1\.0 on \d{4}-\d\d-\d\d come in force", node.log())
        node.until(
            lambda: "no price is known of second (sim/backup, claude/backup): requests" in node.log(), "a warning"
        )


def test_an_upgrade_of_the_package_acts_at_the_next_reload_and_its_loss_does_not(package: Package) -> None:
    with running(CONFIG, workers=2) as node:
        costs(node, 2, 4)
        package.install("2.0", 3, 7)
        costs(node, 2, 4)
        reload(node, 2)
        costs(node, 3, 7)
        package.break_("3.0")
        reload(node, 3)
        assert "the prices of genai-prices 3.0 cannot be read: ImportError: half installed" in node.log()
        package.remove()
        reload(node, 4)
        assert "genai-prices is not installed any more" in node.log()
        costs(node, 3, 7)
        assert "genai-prices 2.0" in prices_of(node)


def test_a_node_that_stood_still_serves_at_once_and_then_by_the_prices_of_today(package: Package) -> None:
    with running(CONFIG, workers=2) as node:
        assert node.stop() == 0
        package.install("2.0", 3, 7)
        node.start()
        node.until(lambda: generations(node) == {3}, "the prices of today")
        assert re.search(r"snapshot 3 published: the prices of genai-prices 2\.0 on ", node.log())
        costs(node, 3, 7)


def test_without_the_package_a_limit_in_money_refuses_until_there_is_one(package: Package) -> None:
    package.remove()
    with running(CONFIG) as node:
        assert refused(node)
        assert node.chat("renamed").status == 200  # a key without such a limit
        assert charged(node) == 0
        assert "no published prices: genai-prices is not installed" in node.log()
        node.until(
            lambda: "no price is known of second (sim/backup, claude/backup), renamed (" in node.log(), "a warning"
        )
        package.install("1.0", 2, 4)
        reload(node, 2)
        costs(node, 2, 4)


def without_prices(node: GatewayNode, generation: int) -> None:
    """Rewrite a snapshot as the build before there were prices has written it."""
    path = store_of(node).directory / f"{generation}.snapshot"
    raw = path.read_bytes()
    payload = msgspec.msgpack.encode(msgspec.msgpack.decode(raw[HEADER_BYTES:])[:6])
    path.write_bytes(raw[:8] + hashlib.sha256(payload).digest() + payload)


@pytest.mark.usefixtures("package")
def test_an_upgrade_in_place_from_a_build_without_prices_brings_them() -> None:
    with running(CONFIG, workers=2) as node:
        without_prices(node, 1)
        assert store_of(node).load(1).prices == b""
        os.kill(node.pid, signal.SIGUSR2)
        node.until(lambda: "the new workers have taken over" in node.log(), "the upgrade")
        costs(node, 2, 4)
        assert "genai-prices 1.0" in prices_of(node)


def test_an_upgrade_in_place_takes_what_is_installed_by_then(package: Package) -> None:
    with running(CONFIG, workers=2) as node:
        package.install("2.0", 3, 7)
        os.kill(node.pid, signal.SIGUSR2)
        node.until(lambda: "the new workers have taken over" in node.log(), "the upgrade")
        node.until(lambda: generations(node) == {3}, "the prices of the new version")
        costs(node, 3, 7)


def test_control_that_dies_comes_back_with_the_prices_in_force(package: Package) -> None:
    with running(CONFIG, workers=2) as node:
        package.install("2.0", 3, 7)
        node.kill_child(node.control())
        node.until(lambda: generations(node) == {2}, "control's first look")
        costs(node, 3, 7)
