"""A node whose control is the real one, and whose workers only count that they are alive.

`python -m tests.fakes.controlled_node DIR` serves DIR/gateway.yaml, and writes its admin port to DIR/ready.
"""

import asyncio
import ssl
import sys
from pathlib import Path

from gateway.config.boot import boot_snapshot
from gateway.config.limits import Limits
from gateway.control.main import control_main
from gateway.journal.opening import ensure_journal
from gateway.limiter.shared import Caretaker, sections
from gateway.nodestate import NODE
from gateway.process.node import Node
from gateway.process.settings import ServeSettings
from gateway.process.sockets import port_of
from gateway.process.supervisor import serve
from gateway.process.worker import WorkerContext
from gateway.telemetry import families
from gateway.telemetry.directory import METRICS
from gateway.telemetry.logs import setup_logging
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.transfer import import_counters

LIMITS = Limits(max_buckets=64, max_holds=64)


class QuietApp:
    """Counts one abandoned exchange for each start and each snapshot adopted."""

    ssl_context: ssl.SSLContext | None = None

    def __init__(self, context: WorkerContext) -> None:
        metrics = Metrics(context.segment.slot(METRICS, context.slot))
        self.counter = metrics.counter(families.ABANDONED, model="quiet")

    async def start(self) -> None:
        self.counter.add()

    def connection(self) -> asyncio.Protocol:
        return asyncio.Protocol()

    async def swap(self, _generation: int) -> None:
        self.counter.add()

    def begin_drain(self) -> None:
        pass

    async def drained(self) -> None:
        pass

    async def stop(self) -> None:
        pass


def main(directory: Path) -> int:
    """Serve until told to stop."""
    settings = ServeSettings(
        config=directory / "gateway.yaml",
        state_dir=directory / "state",
        port=0,
        admin_port=0,
        workers=2,
        drain_s=4.0,
        drain_delay_s=3.0,
        sections=(NODE, METRICS, *sections(LIMITS)),
        argv=(sys.executable, "-m", "tests.fakes.controlled_node", str(directory)),
    )

    def publish() -> int:
        ensure_journal(settings.state_dir)
        return boot_snapshot(settings.config, (), settings.state_dir).generation

    def ready(node: Node) -> None:
        (directory / "ready").write_text(str(port_of(node.listening.admin)))

    return serve(
        settings,
        QuietApp,
        control_main,
        publish=publish,
        on_ready=ready,
        import_counters=import_counters,
        caretaker=Caretaker(LIMITS),
    )


if __name__ == "__main__":
    setup_logging("info", "json", "supervisor")
    raise SystemExit(main(Path(sys.argv[1])))
