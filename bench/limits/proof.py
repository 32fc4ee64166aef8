"""One scenario after the other on running gateways, and the report: `python -m bench.limits proof`.

Each scenario has a provider, a store where it needs one, nodes and callers of its own, in a folder of its own. While
the callers hammer, somebody may be killed and is started again; meanwhile and afterwards the admin port is asked how
the buckets stand. What was found is a table of findings; one that does not hold breaks the proof.
"""

import json
import secrets
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.limits import callers, evidence
from bench.limits.callers import CALM_S, Hammer, Load, hammering
from bench.limits.evidence import Look, Seen, Standing
from bench.limits.fleet import Node
from bench.limits.redis import RedisServer, redis_server
from bench.limits.scenarios import BUDGET, BUDGET_RULE, PROMPT_TOKENS, REQUESTS, SLOTS, SLOTS_RULE, Scenario
from bench.load import judge, stage
from bench.load.judge import Finding
from bench.speed import procfs
from bench.speed.launch import CannotRun
from bench.speed.sections import CLIENT_CORE
from bench.speed.targets import Place
from bench.speed.workload import MODEL
from gateway.config.limits import Limits

CALLERS: Final = 64
KILL_AT: Final = 0.4  # of a run
STORE_GONE_S: Final = 3.0
LOOK_EVERY_S: Final = 0.5
NOISE: Final = 3  # slots by which two looks at different moments differ
ASK_PATIENCE_S: Final = 30.0
UNSURE_S: Final = 0.5  # of refill, while what was used is given back to a store that lost it
PAUSE_AFTER_S: Final = 20.0  # how long after a kill a pause between admissions is looked for

Tell = Callable[[str], None]


@dataclass
class Story:
    """What happened in one scenario. `told`: in words, what is no finding; times are of the callers' clock."""

    scenario: Scenario
    seen: Seen
    end_s: float = 0.0
    looks: list[Look] = field(default_factory=list)
    killed_s: float = 0.0
    told: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether everything does."""
        return bool(self.findings) and all(finding.holds for finding in self.findings)

    def summary(self) -> dict[str, Any]:
        """For proof.json."""
        return {
            "scenario": self.scenario.name,
            "what": self.scenario.what,
            "holds": self.holds,
            "findings": [finding.__dict__ for finding in self.findings],
            "told": self.told,
            "killed_s": self.killed_s,
            "end_s": self.end_s,
            "looks": [[round(look.at_s, 3), look.taken, look.reading] for look in self.looks],
            "seen": self.seen.summary(),
        }


def possible(scenario: Scenario, settings: Sequence[str] = Limits.__struct_fields__) -> str:
    """Why a scenario cannot be run by a gateway with these settings of `limits`; empty when it can."""
    if scenario.slices and "slices" not in settings:
        return "this gateway has no `limits.slices`"
    return ""


# ---- what runs


@dataclass(frozen=True)
class Stand:
    """The processes of one scenario."""

    nodes: Sequence[Node]
    store: RedisServer | None
    load: Load

    def standings(self) -> dict[str, Standing] | None:
        """As the first node tells that can."""
        for node in self.nodes:
            if found := node.standings():
                return found
        return None


def body(scenario: Scenario) -> bytes:
    """What every caller asks: a stream with its usage, of at most so many tokens."""
    asked = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "How much is left of my limit?"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": scenario.reserved,
    }
    return json.dumps(asked).encode()


@contextmanager
def raised(scenario: Scenario, folder: Path) -> Generator[Stand, None, None]:
    """Provider, store and nodes, ready."""
    descriptors, secret = procfs.raise_descriptor_limit(), f"gw-{secrets.token_urlsafe(32)}"
    with ExitStack() as stack:
        sim = stack.enter_context(stage.sim("provider", scenario.sim, folder))
        store = stack.enter_context(redis_server(CLIENT_CORE)) if scenario.store else None
        settings = scenario.settings(store.url if store else "", secret)
        nodes = []
        for number in range(scenario.nodes):
            place = Place(0, sim.port, folder / f"node-{number}", descriptors)
            node = Node(f"node-{number}", place, secret, settings)
            stack.callback(node.close)
            node.start()
            nodes.append(node)
        request = callers.request(secret, body(scenario))
        yield Stand(nodes, store, Load([node.port for node in nodes], request, CALLERS, scenario.pause_s))


# ---- what happens


class Run:
    """One scenario, from the first request to the last look."""

    def __init__(self, scenario: Scenario, stand: Stand, seconds: float) -> None:
        self._scenario = scenario
        self._stand = stand
        self._seconds = seconds
        self.story = Story(scenario, Seen())

    def play(self) -> Story:
        """Hammer, kill, ask."""
        began_s = time.monotonic()
        with hammering(self._stand.load, self._seconds) as hammer:
            self._until(began_s + KILL_AT * self._seconds, hammer)
            if self._scenario.kills:
                self._kill(hammer)
            self._until(began_s + self._seconds + CALM_S, hammer)
        self.story.seen, self.story.end_s = hammer.seen, began_s + self._seconds
        self._judge(*self._settled())
        return self.story

    def _until(self, moment_s: float, hammer: Hammer) -> None:
        while (left_s := moment_s - time.monotonic()) > 0:
            time.sleep(min(left_s, LOOK_EVERY_S))
            self._look(hammer)

    def _look(self, hammer: Hammer) -> None:
        if not self._scenario.kills:
            return
        reading, standings = hammer.reading, self._stand.standings()
        if standings and SLOTS_RULE in standings:
            self.story.looks.append(Look(time.monotonic(), SLOTS - standings[SLOTS_RULE].level, reading))

    def _kill(self, hammer: Hammer) -> None:
        node, store = self._stand.nodes[-1], self._stand.store
        self.story.killed_s = time.monotonic()
        if self._scenario.kills == "worker":
            node.kill_worker()
        elif self._scenario.kills == "node":
            hammer.in_service.discard(node.port)
            node.kill()
            self.story.told.append(f"the node was ready again {node.start():.1f} s after it was started")
            hammer.in_service.add(node.port)
        elif store is not None:
            store.kill()
            self._until(self.story.killed_s + STORE_GONE_S, hammer)
            store.start()
            self.story.told.append(f"the store was away for {time.monotonic() - self.story.killed_s:.1f} s")

    def _settled(self) -> tuple[dict[str, Standing], float]:
        """How the buckets stand once no slot is taken any more, or when that takes too long; and how long it took."""
        until_s = time.monotonic() + ASK_PATIENCE_S
        while True:
            standings = self._stand.standings()
            now_s = time.monotonic()
            taken = SLOTS - standings[SLOTS_RULE].level if standings and SLOTS_RULE in standings else 0.0
            if standings and not taken:
                return standings, now_s - self._last_answer_s()
            if now_s > until_s:
                if standings is None:
                    raise CannotRun("the admin port did not tell how the buckets stand")
                return standings, now_s - self._last_answer_s()
            time.sleep(0.1)

    def _last_answer_s(self) -> float:
        return max([self.story.end_s, *(admitted.done_s for admitted in self.story.seen.admitted)])

    def _judge(self, standings: Mapping[str, Standing], waited_s: float) -> None:
        story, scenario = self.story, self._scenario
        story.findings = findings(story, standings, waited_s)
        story.told += [*numbers(story.seen, self._seconds), *(recovery(story) if scenario.kills else ())]
        if self._stand.store is not None:
            calls, asked = self._stand.store.calls(), len(story.seen.admitted) + story.seen.refused
            story.told.append(f"the store was called {calls:,} times, {calls / max(asked, 1):.2f} a request")


# ---- what it means


def findings(story: Story, standings: Mapping[str, Standing], waited_s: float) -> list[Finding]:
    """Everything that the scenario is to show."""
    scenario, seen, rate = story.scenario, story.seen, story.scenario.rate
    found = [evidence.answers_right(seen)]
    if scenario.slices:
        found += [evidence.requests_within(seen, rate)[0], *evidence.requests_at_rate(seen, rate, story.end_s)]
        used, doubt = 0.0, 0.0
    elif scenario.resource == REQUESTS:
        guessed = 0
        if scenario.kills == "store":
            guessed = int(rate.capacity if scenario.nodes > 1 else rate.per_s * UNSURE_S)
        found += evidence.requests_within(seen, rate, guessed)
        used, doubt = float(len(seen.admitted)), float(len(seen.broken) + len(seen.unavailable_s) + guessed)
    else:
        found += evidence.tokens_at_rate(seen, rate, story.end_s)
        used, doubt = float(sum(admitted.tokens for admitted in seen.admitted)), 0.0
    if not scenario.kills:
        found += evidence.undisturbed(seen)
    if seen.admitted and not scenario.slices:  # what a node has leased is in no bucket of the store
        found.append(evidence.level_accounted(seen, rate, standings[scenario.rate_rule], used, doubt))
        found.append(evidence.slots_free(SLOTS - standings[SLOTS_RULE].level, waited_s))
        reserved = scenario.reserved + PROMPT_TOKENS
        found.append(evidence.budget_accounted(BUDGET - standings[BUDGET_RULE].level, seen, reserved))
    return found


def numbers(seen: Seen, seconds: float) -> list[str]:
    """How much was asked, and what a refusal took."""
    told = [f"{len(seen.admitted):,} admitted, {seen.refused:,} refused ({seen.refused / seconds:,.0f} a second)"]
    if seen.refused:
        p50, p99 = (seen.refusals.quantile_us(q) / 1e3 for q in (0.5, 0.99))
        told.append(f"a refusal took {p50:.1f} ms (p50), {p99:.1f} ms (p99)")
    if seen.unavailable_s:
        told.append(f"{len(seen.unavailable_s):,} were told that limits are unavailable (503)")
    if seen.broken or seen.unreachable:
        told.append(f"{len(seen.broken):,} broke off, {seen.unreachable:,} connections were not accepted")
    return told


def recovery(story: Story) -> list[str]:
    """What the kill did to others, in time."""
    killed_s = story.killed_s
    done_s = [admitted.done_s for admitted in story.seen.admitted]
    pause_s = evidence.longest_pause_s(done_s, killed_s, min(killed_s + PAUSE_AFTER_S, story.end_s))
    leaked_s = evidence.leaked_until_s(story.looks, killed_s, NOISE)
    return [
        f"after the kill the longest time without an admission was {pause_s:.1f} s",
        f"slots of what was killed were last seen taken {leaked_s:.1f} s after it (looked at every {LOOK_EVERY_S} s)",
    ]


def markdown(stories: Sequence[Story], left_out: Mapping[str, str], conditions: Mapping[str, str]) -> str:
    """The report, verdict first."""
    broken = [story.scenario.name for story in stories if not story.holds]
    verdict = f"**Broken: {', '.join(broken)}.**" if broken else "**Every bound holds.**"
    parts = ["# Limits, proved on running gateways", f"{verdict} {CALLERS} callers."]
    for story in stories:
        told = "\n".join(f"- {words}" for words in story.told)
        parts += [f"## {story.scenario.name}: {story.scenario.what}", judge.markdown(story.findings), told]
    parts += [f"- {name} was not run: {why}" for name, why in left_out.items()]
    rows = "\n".join(f"| {name} | {value} |" for name, value in conditions.items())
    return "\n\n".join([*parts, f"## Conditions\n\n| what | value |\n|---|---|\n{rows}"]) + "\n"


def prove(scenarios: Sequence[Scenario], seconds: float, folder: Path, tell: Tell) -> list[Story]:
    """Every scenario, for so many seconds."""
    stories = []
    for number, scenario in enumerate(scenarios, 1):
        tell(f"{number} of {len(scenarios)}, {scenario.name}: {scenario.what} ({seconds:.0f} s)")
        place = folder / scenario.name
        place.mkdir(parents=True, exist_ok=True)
        with raised(scenario, place) as stand:
            story = Run(scenario, stand, seconds).play()
        tell(f"{scenario.name}: {'holds' if story.holds else 'BROKEN'}")
        stories.append(story)
    return stories
