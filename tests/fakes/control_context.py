"""A node as control sees it, without any other process: a real segment and board, a real state directory."""

import asyncio
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

from gateway.config.boot import boot_snapshot
from gateway.config.limits import Limits
from gateway.journal.opening import ensure_journal
from gateway.limiter.shared import Caretaker, sections
from gateway.nodestate import NODE, NodeState, Order, SlotPhase
from gateway.segment import Segment
from gateway.telemetry.directory import METRICS

TOKEN = "admin-token-of-the-tests"
CONFIG = f"""\
admin: {{port: 0, token: {TOKEN}}}
providers:
  big: {{kind: openai, base_url: "http://127.0.0.1:1/v1", api_key: provider-secret-1}}
models:
  large: {{targets: [{{provider: big, model: large-1}}]}}
  "open/*": {{targets: [{{provider: big, model: "*", weight: 2}}], fallbacks: [large]}}
keys:
  - {{id: ann, secret: secret-of-ann-1234, org: acme, team: search, user: ann@example.org}}
  - {{id: "team/bob", secret: secret-of-bob-1234, org: acme, disabled: true}}
routes:
  - {{name: agents, match: {{path: /v1/responses}}, data_class: secret, timeouts: {{total_s: 3600}}}}
log: {{level: warning, format: json}}
"""
WORKERS = 2
LIMITS = Limits(max_buckets=64, max_holds=64)


@dataclass(frozen=True)
class FakeSettings:
    config: Path
    state_dir: Path
    overrides: tuple[str, ...] = ()


@dataclass
class FakeContext:
    """What `process/control.py` hands to control, driven by the test."""

    settings: FakeSettings
    segment: Segment
    state: NodeState
    slot: int
    boot_ns: int
    admin: socket.socket
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    requests: "asyncio.Queue[int | None]" = field(default_factory=asyncio.Queue)
    answers: list[tuple[int, int]] = field(default_factory=list)
    is_ready: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def port(self) -> int:
        return int(self.admin.getsockname()[1])

    def ready(self) -> None:
        self.is_ready.set()

    async def next_reload(self) -> int | None:
        return await self.requests.get()

    def reloaded(self, request: int, generation: int) -> None:
        self.publish(generation)
        self.answers.append((request, generation))

    def reload_refused(self, request: int) -> None:
        self.answers.append((request, 0))

    def publish(self, generation: int) -> None:
        self.state.generation = generation

    def worker(self, slot: int, phase: SlotPhase = SlotPhase.READY) -> None:
        """Put a worker in a slot, in step with the board."""
        words = self.state.slot(slot)
        words.begin(Order.SERVE, time.monotonic_ns())
        words.pid, words.phase, words.generation = 1000 + slot, phase, self.state.generation
        self.state.workers_ready = sum(words.phase == SlotPhase.READY for _, words in self.state.live_workers())

    def write(self, text: str) -> None:
        """Replace the config file."""
        self.settings.config.write_text(text)

    def close(self) -> None:
        self.admin.close()


def fake_context(directory: Path, config: str = CONFIG) -> FakeContext:
    """A booted node with WORKERS ready workers, listening for its admin port on a free one."""
    settings = FakeSettings(directory / "gateway.yaml", directory / "state")
    settings.config.write_text(config)
    ensure_journal(settings.state_dir)
    segment = Segment.create([NODE, METRICS, *sections(LIMITS)], slots=2 * WORKERS + 2)
    state = NodeState(segment)
    Caretaker(LIMITS).open(state)
    state.generation = boot_snapshot(settings.config, (), settings.state_dir).generation
    state.workers_wanted = WORKERS
    state.boot_id = 0xABC
    admin = socket.create_server(("127.0.0.1", 0))
    context = FakeContext(settings, segment, state, state.control_slot, time.monotonic_ns(), admin)
    for slot in range(WORKERS):
        context.worker(slot)
    return context
