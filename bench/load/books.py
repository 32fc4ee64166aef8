"""What a gateway of our own wrote down: money counted, slots still taken, exchanges in its journal.

Asked once a load is over, so that a governed gateway is known to have governed: limits that are switched off cost
nothing, and would pass every other threshold.
"""

import json
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from bench.speed import launch
from bench.speed.workload import MODEL

KEY_ID: Final = "bench"
SPENT_RULE, SLOTS_RULE = "key.usd_per_month", "key.max_in_flight"
PATIENCE_S: Final = 10.0  # with what was broken off when the load ended
OUTCOME: Final = b',"kind":"outcome",'


@dataclass(frozen=True)
class Books:
    """After a load; nothing is spent where nothing is counted."""

    spent_microusd: float
    taken: float
    recorded: int


def read(config: Path) -> Books:
    """Of the gateway that runs with that gateway.yaml, once it has no slot taken any more, or that takes too long."""
    settings = yaml.safe_load(config.read_text())
    until_s = time.monotonic() + PATIENCE_S
    while (used := _used(settings["admin"])).get(SLOTS_RULE) and time.monotonic() < until_s:
        time.sleep(0.1)
    return Books(used.get(SPENT_RULE, 0.0), used.get(SLOTS_RULE, 0.0), recorded(Path(settings["state_dir"])))


def _used(admin: dict[str, Any]) -> dict[str, float]:
    """How much of each limit of the bench's key is used, by the rule's name."""
    query = urllib.parse.urlencode({"key": KEY_ID, "model": MODEL})
    address = f"http://{admin['host']}:{admin['port']}/v1/limits/explain?{query}"
    asked = urllib.request.Request(address, headers={"Authorization": f"Bearer {admin['token']}"})
    with launch.WITHOUT_PROXY.open(asked, timeout=PATIENCE_S) as answer:
        told = json.load(answer)
    return {row["rule"]: row["capacity"] - row["level"] for row in told["limits"]}


def recorded(state: Path) -> int:
    """Outcomes in the journal's files."""
    files = (path for path in (state / "journal").rglob("*") if path.is_file())
    return sum(path.read_bytes().count(OUTCOME) for path in files)
