"""The profiles: how much is asked, how the simulated provider behaves, and what must hold.

Rates are of all users together, in requests (conversations, streams) a second; they are what Locust and the simulated
provider manage beside a gateway on two cores, not what the gateway can do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LOCUSTFILES: Final = Path(__file__).parent.parent / "locust"
MAX_P99_ADDED_MS: Final = 50.0
MAX_GROWTH_MB: Final = 8.0
QUOTA_RULE, PATIENT_RULE = "bench-quota", "bench-patient"
QUOTA_RPM, QUOTA_CAPACITY = 600, 20
PATIENT_RPM, PATIENT_CAPACITY = 120, 2
MAX_REFUSAL_P99_MS: Final = 50.0


@dataclass(frozen=True)
class Profile:
    """One kind of load. `behave` is the simulated provider's, in its own words (docs/sim.md)."""

    name: str
    what: str
    rate: float
    users: int
    seconds: float = 30.0
    behave: str = ""
    quiet_users: tuple[str, ...] = ()  # classes that run alone in the run to compare with, before the gateway itself
    fails: bool = False  # the first of two providers fails in the middle third
    watched: bool = False  # memory and descriptors are to stay flat
    limited: bool = False  # keys have limits that no load here reaches
    quota: bool = False  # and the first key has one that it does reach
    governed: bool = False  # what was counted and recorded is looked at afterwards

    @property
    def locustfile(self) -> Path:
        """What Locust is given."""
        return LOCUSTFILES / f"{self.name}.py"


PROFILES: Final[Sequence[Profile]] = (
    Profile(
        "chat", "short, retrieval-sized and 100 KB prompts, plain answers", 60, 40, behave="ttft-ms=50; tokens=100"
    ),
    Profile(
        "stream",
        "streams at a model's pace: first token, gaps between tokens, terminator",
        10,
        40,
        behave="ttft-ms=200; token-ms=20; tokens=50",
    ),
    Profile("agents", "bursts of tool loops whose context grows", 5, 20, behave="ttft-ms=20; tokens=60"),
    Profile("embeddings", "batches of 16 passages", 15, 20, behave="ttft-ms=10"),
    Profile(
        "noisy_neighbour",
        "one tenant floods; the others' p99 must not move",
        30,
        40,
        behave="ttft-ms=20; tokens=50",
        quiet_users=("Quiet",),
    ),
    Profile(
        "limits",
        "callers above their quota: refusals are right, cheap and told in time",
        60,
        40,
        behave="ttft-ms=20; tokens=20",
        limited=True,
        quota=True,
    ),
    Profile(
        "governed",
        "the prompts of chat with four limits on the key, prices and journal",
        60,
        40,
        behave="ttft-ms=50; tokens=100",
        limited=True,
        governed=True,
    ),
    Profile(
        "degraded", "the first provider fails and heals; callers see neither", 30, 40, behave="tokens=30", fails=True
    ),
    Profile(
        "soak", "everything for hours; memory and descriptors stay flat", 20, 40, 3600.0, "tokens=30", watched=True
    ),
)
BY_NAME: Final = {profile.name: profile for profile in PROFILES}
