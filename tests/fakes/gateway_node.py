"""The real thing on free ports: the simulated provider and a gateway in front of it, as child processes.

    with running({"models": {...}}, workers=2) as node:
        node.post("/v1/chat/completions", {...})
        node.sim.requests()

A config given here is laid over `CONFIG`; `@SIM@` in it stands for the provider's address. Leaving the block is part
of the test: SIGTERM must end the gateway with code 0 and nothing left behind, its log must hold no error and no
traceback, and neither the log nor the answers that passed through here may hold a provider's key.
"""

import contextlib
import copy
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tests.fakes.patience import PATIENCE_S
from tests.fakes.wire_client import Answer, Call, request

Found = TypeVar("Found")

ROOT = Path(__file__).parents[2]
PROVIDER_KEY = "sk-provider-secret-9f27c1d4e8"
ADMIN_TOKEN = "admin-token-5d1b2f77a0"
KEY = "gw-demo" + "0" * 39
LIMITED_KEY = "gw-limited" + "0" * 36
DISABLED_KEY = "gw-disabled" + "0" * 35
EXPIRED_KEY = "gw-expired" + "0" * 36
REVOCABLE_KEY = "gw-revocable" + "0" * 34
_READY = re.compile(r"ready: data on port (\d+), admin on port (\d+)")

# A model called `sim-…` reaches the provider as `…`, so that a behaviour of the simulated one can be asked for by name
# (docs/sim.md); under `first/` the same, with `second` behind it, which always answers.
CONFIG: dict[str, Any] = {
    "listen": {"host": "127.0.0.1", "port": 0, "workers": 1},
    "admin": {"host": "127.0.0.1", "port": 0, "token": ADMIN_TOKEN},
    "drain_delay_s": 0,
    "drain_s": 5,
    "log": {"level": "info", "requests": "all", "format": "json"},
    "providers": {
        "sim": {"kind": "openai", "base_url": "@SIM@/v1", "api_key": PROVIDER_KEY},
        "claude": {"kind": "anthropic", "base_url": "@SIM@", "api_key": PROVIDER_KEY},
        "mirror": {"kind": "openai", "base_url": "@SIM@/echo", "api_key": PROVIDER_KEY},
        "raw": {"kind": "openai", "base_url": "@SIM@", "api_key": PROVIDER_KEY},
    },
    "models": {
        "sim-*": {"targets": [{"provider": "sim", "model": "*"}, {"provider": "claude", "model": "*"}]},
        "first/*": {
            "targets": [{"provider": "sim", "model": "*"}, {"provider": "claude", "model": "*"}],
            "fallbacks": ["second"],
        },
        "second": {"targets": [{"provider": "sim", "model": "backup"}, {"provider": "claude", "model": "backup"}]},
        "renamed": {"targets": [{"provider": "sim", "model": "upstream-name"}]},
        "mirror/*": {"targets": [{"provider": "mirror", "model": "*"}]},
    },
    "keys": [
        {"id": "demo", "secret": KEY, "org": "acme", "team": "search", "user": "ann", "labels": {"app": "ui"}},
        {"id": "limited", "secret": LIMITED_KEY, "org": "acme", "models": ["renamed", "mirror/*"]},
        {"id": "disabled", "secret": DISABLED_KEY, "disabled": True},
        {"id": "expired", "secret": EXPIRED_KEY, "expires_at": "2020-01-01T00:00:00Z"},
        {"id": "revocable", "secret": REVOCABLE_KEY},
    ],
}


class Sim:
    """The simulated provider, steered and asked."""

    def __init__(self, url: str, process: "subprocess.Popen[str]") -> None:
        self.url = url
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """It keeps its connections and says nothing meanwhile: a stream that has begun does not end."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def requests(self, model: str = "") -> list[dict[str, Any]]:
        """What it was sent, oldest first; `model`, as a caller names it, picks some."""
        with urllib.request.urlopen(self.url + "/__sim/requests", timeout=PATIENCE_S) as answer:  # noqa: S310
            entries: list[dict[str, Any]] = json.load(answer)["requests"]
        return [entry for entry in entries if not model or entry["model"] == model.removeprefix("sim-")]

    def last(self, model: str = "") -> dict[str, Any]:
        """The last request."""
        return self.requests(model)[-1]

    def ended(self, model: str = "") -> dict[str, Any]:
        """The last request, once its answer has ended."""
        return until(lambda: next((e for e in self.requests(model)[-1:] if e["ended"]), None), "the answer's end")

    def reset(self) -> None:
        """Forget what was sent and every script."""
        self._post("reset", {})

    def script(self, *rules: Mapping[str, Any]) -> None:
        """Answer by these rules from now on, until `reset`."""
        self._post("script", {"rules": rules})

    def _post(self, verb: str, body: object) -> None:
        data, headers = json.dumps(body).encode(), {"content-type": "application/json"}
        asked = urllib.request.Request(f"{self.url}/__sim/{verb}", data, headers)  # noqa: S310
        with urllib.request.urlopen(asked, timeout=PATIENCE_S) as answer:  # noqa: S310
            assert answer.status == 200


class GatewayNode:
    """One running gateway. `answers` holds every answer given through `call`, to be searched for secrets at the end."""

    def __init__(
        self,
        directory: Path,
        config: Mapping[str, Any],
        sim: Sim,
        *,
        preface: bytes = b"",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.directory = directory
        self.preface = preface  # what a connection to the data port must begin with
        self.tls = tls  # how to speak to the data port
        self.config = config
        self.sim = sim
        self.key = KEY
        self.log_path = directory / "log"
        self.config_path = directory / "gateway.yaml"
        self.answers: list[Answer] = []
        self.expected: list[str] = []  # patterns of error lines that the test itself brings about
        self.port = 0
        self.admin_port = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The supervisor."""
        assert self.process is not None
        return self.process.pid

    # --- life -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self.config_path.write_text(yaml.safe_dump(dict(self.config), sort_keys=False).replace("@SIM@", self.sim.url))
        command = [sys.executable, "-m", "gateway", "serve", "--config", str(self.config_path)]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        ready = self.until(lambda: _READY.search(self.log()), "ready", alive=True)
        self.port, self.admin_port = int(ready[1]), int(ready[2])
        asked = self.preface + self.request("/readyz", b"", key="", method="GET")
        self.until(lambda: self.call(asked, "GET").status == 200, "readyz", alive=True)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        """End whatever is left of it, the supervisor first: what it forked until then is found here."""
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        for pid in self.session():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not self.session(), "its processes to be gone")

    def session(self) -> list[int]:
        """Every living process that came from it."""
        return [pid for pid in _pids() if _session(pid) == self.pid]

    def workers(self) -> list[int]:
        """Process ids of the workers that serve now; the status may still tell of one that has just been killed."""
        rows: list[dict[str, Any]] = self.admin("/v1/status").json["workers"]
        return [row["pid"] for row in rows if row["state"] == "ready" and _session(row["pid"]) == self.pid]

    def until_workers(self, count: int, *, without: Iterable[int] = ()) -> list[int]:
        """Wait until so many workers serve, none of them one of `without`; their process ids."""

        def all_of_them() -> list[int]:
            found = self.workers()
            return found if len(found) == count and not set(found) & set(without) else []

        return self.until(all_of_them, f"{count} workers")

    def control(self, *, without: int = 0) -> int:
        """Process id of control, once there is one, and it is not `without`."""

        def look() -> int:
            return next((pid for pid in self.session() if pid != without and _title(pid) == "gw-control"), 0)

        return self.until(look, "control")

    def kill_child(self, pid: int) -> None:
        """SIGKILL a worker or control, and wait until it is dead: who looks for the living does not find it then."""
        self.expected.append(f"pid {pid}, killed by SIGKILL")
        os.kill(pid, signal.SIGKILL)
        self.until(lambda: _session(pid) != self.pid, f"{pid} to be dead")

    def command(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run another command of the gateway with this one's config."""
        command = [sys.executable, "-m", "gateway", *words, "--config", str(self.config_path)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    # --- what it says -----------------------------------------------------------------------------------------------

    def log(self) -> str:
        """Everything written to stderr and stdout so far."""
        return self.log_path.read_text("utf-8", "replace") if self.log_path.exists() else ""

    def lines(self, event: str = "") -> list[dict[str, Any]]:
        """The log's JSON lines; `event` picks one kind ("request", "log")."""
        rows = [json.loads(line) for line in self.log().splitlines() if line.startswith("{") and line.endswith("}")]
        return [row for row in rows if not event or row.get("event") == event]

    def logged(self, request_id: str) -> dict[str, Any]:
        """The request line with this id, once it is written."""
        return self.until(
            lambda: next((row for row in self.lines("request") if row.get("id") == request_id), None),
            f"the log line of {request_id}",
        )

    def metrics(self, family: str, **labels: str) -> float:
        """The sum of a family's samples that have these labels."""
        rows = re.findall(
            rf"^{family}(?:\{{(.*)\}})? ([0-9.e+-]+)$", self.admin("/metrics").body.decode(), re.MULTILINE
        )
        wanted = [f'{name}="{value}"' for name, value in labels.items()]
        return sum(float(value) for said, value in rows if all(label in said.split(",") for label in wanted))

    # --- calling it -------------------------------------------------------------------------------------------------

    def open(self, raw: bytes = b"", **options: Any) -> Call:
        """A connection, with these bytes sent."""
        return Call(self.port, raw, **{"tls": self.tls, **options})

    def call(self, raw: bytes, method: str = "POST") -> Answer:
        """Send bytes on a connection of their own and wait for the answer to end."""
        with self.open(raw, method=method) as call:
            answer = call.answer()
        self.answers.append(answer)
        return answer

    def post(
        self, path: str, body: object, headers: Mapping[str, str] | None = None, key: str = KEY, method: str = "POST"
    ) -> Answer:
        """Send JSON (or bytes as they are) with a key; "" sends none."""
        return self.call(self.request(path, body, headers, key, method), method)

    def request(
        self, path: str, body: object, headers: Mapping[str, str] | None = None, key: str = KEY, method: str = "POST"
    ) -> bytes:
        """The bytes that `post` sends."""
        given = {"content-type": "application/json"} if method == "POST" else {}
        if key:
            given["authorization"] = f"Bearer {key}"
        return request(method, path, body, {**given, **(headers or {})})

    def get(self, path: str, headers: Mapping[str, str] | None = None, key: str = KEY) -> Answer:
        """GET from the data port."""
        return self.post(path, b"", headers, key, "GET")

    def chat(self, model: str = "sim-m", *, headers: Mapping[str, str] | None = None, **fields: object) -> Answer:
        """One chat completion."""
        return self.post("/v1/chat/completions", chat_body(model, **fields), headers)

    def message(self, model: str = "sim-m", *, headers: Mapping[str, str] | None = None, **fields: object) -> Answer:
        """One Anthropic message."""
        return self.post("/v1/messages", {**chat_body(model), "max_tokens": 100, **fields}, headers)

    def admin(self, path: str) -> Answer:
        """GET from the admin port. Raises ConnectionError where control dies meanwhile."""
        with Call(
            self.admin_port, request("GET", path, b"", {"authorization": f"Bearer {ADMIN_TOKEN}"}), "GET"
        ) as call:
            answer = call.answer()
        if answer.ended != "whole":
            raise ConnectionResetError(f"the answer of {path} was {answer.ended}")
        return answer

    def until(self, condition: Callable[[], Found | None], what: str, *, alive: bool = False) -> Found:
        """Wait for a condition; fails with the log when it does not come."""

        def looked() -> Found | None:
            if alive and self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"the gateway ended with {self.process.returncode}:\n{self.log()}")
            with contextlib.suppress(ConnectionError):
                return condition()
            return None

        try:
            return until(looked, what)
        except TimeoutError as error:
            raise AssertionError(f"{error}; log:\n{self.log()[-20_000:]}") from None

    # --- the end ----------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Stop, and check that all that happened was in order."""
        assert self.stop() == 0, self.log()[-20_000:]
        assert self.session() == [], "processes are left"
        log = self.log()
        assert "Traceback" not in log, log[-20_000:]
        unexpected = [row for row in self.lines("log") if row["level"] in _BAD and not self._is_expected(row)]
        assert not unexpected, unexpected
        answers = [answer for answer in self.answers if b'"body_b64"' not in answer.body]  # a mirror shows what we sent
        told = b"\n".join([str(answer.headers).encode() + answer.body for answer in answers]) + log.encode()
        for secret in (PROVIDER_KEY, ADMIN_TOKEN, KEY):
            assert secret.encode() not in told, f"{secret} was told to a caller or logged"

    def _is_expected(self, row: Mapping[str, Any]) -> bool:
        return any(re.search(pattern, row["message"]) for pattern in self.expected)


_BAD = ("error", "critical")


def chat_body(model: str, **fields: object) -> dict[str, object]:
    """A small chat request."""
    return {"model": model, "messages": [{"role": "user", "content": "hello there"}], **fields}


def until(condition: Callable[[], Found | None], what: str) -> Found:
    """The first thing a condition gives that is not false; TimeoutError when none comes."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PATIENCE_S} s for {what}")
        time.sleep(0.01)


@contextlib.contextmanager
def simulated(*options: str) -> Iterator[Sim]:
    """The simulated provider on a free port."""
    command = [sys.executable, "-m", "bench.sim", "--quiet", "--exit-with-parent", str(os.getpid()), *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line.startswith("sim listening on http"), line
            yield Sim(line.split()[-1], process)
        finally:
            process.kill()


@contextlib.contextmanager
def running(
    config: Mapping[str, Any] | None = None,
    *,
    sim_args: Sequence[str] = ("--api-key", PROVIDER_KEY),
    workers: int = 1,
    preface: bytes = b"",
    tls: ssl.SSLContext | None = None,
) -> Iterator[GatewayNode]:
    """A gateway in front of a simulated provider, both ready."""
    merged = _laid_over(copy.deepcopy(CONFIG), config or {})
    merged["listen"]["workers"] = workers
    with tempfile.TemporaryDirectory(prefix="gateway-") as name, simulated(*sim_args) as sim:
        merged["state_dir"] = str(Path(name) / "state")
        node = GatewayNode(Path(name), merged, sim, preface=preface, tls=tls)
        try:
            node.start()
            yield node
            node.finish()
        finally:
            node.kill()


def _laid_over(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in above.items():
        known = below.get(name)
        below[name] = _laid_over(known, value) if isinstance(known, dict) and isinstance(value, Mapping) else value
    return below


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _title(pid: int) -> str:
    """What a process calls itself, "" for one that is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip()
    return ""


def _session(pid: int) -> int:
    """The session of a process that lives; -1 for one that is gone, or waits to be reaped."""
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0]
        return -1 if state == "Z" else os.getsid(pid)
    return -1
