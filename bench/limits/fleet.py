"""Gateways in front of one provider: started as an operator would, killed as only a kernel would, started again.

A node keeps its ports, its secrets and its `state_dir` over a kill. Nodes are not pinned to a core: what is proved is
exactness, and processes that really run at the same time are the harder case.
"""

import json
import os
import signal
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

import yaml

from bench.limits.evidence import Standing
from bench.speed import launch, procfs
from bench.speed.launch import CannotRun, Process
from bench.speed.targets import Gateway, Place, overlaid
from bench.speed.workload import MODEL

READY_WITHIN_S: Final = 60.0
ASK_WITHIN_S: Final = 5.0
KEY_ID: Final = "bench"


class Node:
    """One gateway. `settings` are laid over the bench's own."""

    def __init__(self, name: str, place: Place, secret: str, settings: Mapping[str, object]) -> None:
        self.name = name
        self.port = launch.free_port()
        self._folder = place.folder
        self._folder.mkdir(parents=True, exist_ok=True)
        config = overlaid(Gateway().config(place, self.port, secret), settings)
        self._file = self._folder / "gateway.yaml"
        self._file.write_text(yaml.safe_dump(config, sort_keys=False))
        self._admin: dict[str, Any] = dict(config["admin"]) if isinstance(config["admin"], Mapping) else {}
        self._running = ExitStack()
        self._process: Process | None = None

    def start(self) -> float:
        """Start, and wait for /readyz; how many seconds that took. CannotRun with its last words if it does not."""
        began_s = time.monotonic()
        words = [str(Path(sys.executable).parent / "gateway"), "serve", "--config", str(self._file)]
        log = self._folder / "log"
        self._process = self._running.enter_context(launch.started(self.name, words, core=None, log=log))
        self._process.wait_for("200 from /readyz", lambda: launch.answers(self.port, "/readyz"), READY_WITHIN_S)
        return time.monotonic() - began_s

    def workers(self) -> list[int]:
        """The processes that serve."""
        reading = procfs.Reading.of(self._process.pid if self._process else None)
        return [process.pid for process in reading.processes.values() if "worker" in process.name]

    def kill_worker(self) -> None:
        """SIGKILL one of them."""
        os.kill(self.workers()[0], signal.SIGKILL)

    def kill(self) -> None:
        """SIGKILL everything at once, the supervisor first, so that nobody cleans up behind anybody."""
        if self._process is None:
            return
        for pid in procfs.tree(self._process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.popen.wait()
        self.close()  # while nobody else can have its number

    def close(self) -> None:
        """Stop it for good."""
        self._running.close()
        self._process = None

    def standings(self, clock: Callable[[], float] = time.monotonic) -> dict[str, Standing] | None:
        """How the buckets of the bench's key stand, by the rule's name; None while they cannot be known."""
        query = urllib.parse.urlencode({"key": KEY_ID, "model": MODEL})
        address = f"http://127.0.0.1:{self._admin['port']}/v1/limits/explain?{query}"
        asked = urllib.request.Request(address, headers={"Authorization": f"Bearer {self._admin['token']}"})
        try:
            with launch.WITHOUT_PROXY.open(asked, timeout=ASK_WITHIN_S) as answer:
                told: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 503:  # noqa: PLR2004 - the store is away
                return None
            raise CannotRun(f"{address} answers {error.code}: {error.read()[:300]!r}") from None
        except OSError:
            return None
        at_s = clock()
        return {row["rule"]: Standing(row["capacity"], row["level"], at_s) for row in told["limits"]}
