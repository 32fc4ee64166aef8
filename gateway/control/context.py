"""What control is handed by the process layer, named here because that layer stands above and is not imported."""

import asyncio
import socket
from pathlib import Path
from typing import Protocol

from gateway.nodestate import NodeState
from gateway.segment import Segment


class Settings(Protocol):
    """The part of the node's settings that control reads."""

    @property
    def config(self) -> Path:
        """The config file."""

    @property
    def overrides(self) -> tuple[str, ...]:
        """What `--set` laid over it."""

    @property
    def state_dir(self) -> Path:
        """Where snapshots and revocations are, whatever a later config says."""


class Context(Protocol):
    """The node as control sees it, and the answers it gives."""

    @property
    def settings(self) -> Settings:
        """As the node was started."""

    @property
    def segment(self) -> Segment:
        """The control segment."""

    @property
    def state(self) -> NodeState:
        """Its board."""

    @property
    def slot(self) -> int:
        """Control's own slot."""

    @property
    def boot_ns(self) -> int:
        """When the node first started, on the monotonic clock."""

    @property
    def admin(self) -> socket.socket:
        """Listening, and the supervisor's: to be served through a duplicate."""

    @property
    def stopping(self) -> asyncio.Event:
        """Set when control is to leave."""

    def ready(self) -> None:
        """The admin port is being served."""

    async def next_reload(self) -> int | None:
        """The newest unanswered reload request; None when told to stop."""

    def reloaded(self, request: int, generation: int) -> None:
        """Answer a request: this snapshot is published."""

    def reload_refused(self, request: int) -> None:
        """Answer a request: everyone stays with the old one."""

    def publish(self, generation: int) -> None:
        """Make a snapshot current without a request from the supervisor."""
