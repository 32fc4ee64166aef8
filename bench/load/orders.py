"""What the runner tells a profile: one JSON object in the environment, which Locust's own workers inherit.

A profile that is started by hand (`locust -f bench/locust/chat.py --host …`) finds the defaults.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Final

VARIABLE: Final = "BENCH_ORDERS"


@dataclass(frozen=True)
class Orders:
    """Keys and model to ask with, how often each user asks, and where the outcome goes (nowhere: empty)."""

    key: str = ""
    neighbours_key: str = ""
    patient_key: str = ""
    model: str = "bench-model"
    rate_per_user: float = 1.0
    outcome: str = ""

    def written(self) -> str:
        """For the environment."""
        return json.dumps(asdict(self))


def read(environment: Mapping[str, str] = os.environ) -> Orders:
    """The orders that were given; names this version does not know are an error, a bench is not to guess."""
    given = json.loads(environment.get(VARIABLE, "{}"))
    if unknown := set(given) - {field.name for field in fields(Orders)}:
        raise ValueError(f"{VARIABLE}: unknown {', '.join(sorted(unknown))}")
    return Orders(**given)
