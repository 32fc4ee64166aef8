"""Other gateways beside ours: LiteLLM's proxy and Portkey's, one worker each, same core, same upstream, same requests.

They are installed when they are first asked for (`--targets direct,nginx,gateway,litellm,portkey`), from PyPI and npm
at the versions below, into build/peers/, outside the project's environment. Both are set up as their pages say for one
provider: LiteLLM with a model list and a master key, Portkey with the provider named in headers; nothing of theirs that
costs time is switched on. What cannot be installed, does not start, or answers wrongly at first is named in the report
with the reason and left out, streams apart from plain requests. They may write an answer anew, so its length and number
of events are not checked; status, framing, the echoed number and the terminator are.
"""

import http.client
import json
import subprocess
import sys
import urllib.error
import urllib.request
from abc import abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import yaml

from bench.speed import launch
from bench.speed.launch import CannotRun
from bench.speed.native import CHAT_PATH
from bench.speed.targets import ROOT, UPSTREAM_MODEL, Place, Running, Target
from bench.speed.workload import MODEL, plain, streamed

CACHE: Final = ROOT / "build" / "peers"
LITELLM_VERSION: Final = "1.106.2"
PORTKEY_VERSION: Final = "1.15.2"
NODE_SERVER_VERSION: Final = "1.13.8"
"""What Portkey listens with: with the newest of the versions it allows, 1.19.19, all its streams are a status 500."""
INSTALL_S: Final = 600
START_S: Final = 90.0
PROBE_S: Final = 10
MASTER_KEY: Final = "sk-bench-master"  # between two processes on loopback

LOOPBACK: Final = """\
const net = require("node:net");
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  return listen.call(this, { port: Number(port), host: "127.0.0.1" }, rest.find((each) => typeof each === "function"));
};
"""
"""Preloaded into node: Portkey has no option for the address, and a bench is nobody else's business."""


def run_installer(name: str, command: Sequence[str], folder: Path) -> None:
    """Run one step of an installation; CannotRun with the end of what it said."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=INSTALL_S)  # noqa: S603 - pip, npm
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotRun(f"{name} cannot be installed: {error}") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise CannotRun(f"{name} cannot be installed: {said[-1] if said else f'status {done.returncode}'}")


def installed(
    name: str, version: str, steps: Sequence[Sequence[str]], files: Mapping[str, str] | None = None, cache: Path = CACHE
) -> Path:
    """The folder of a program at that version, made by `steps` unless it is there already; `files` are there before."""
    folder = cache / f"{name}-{version}"
    stamp = folder / ".installed"
    if not stamp.exists():
        print(f"installing {name} {version} into {folder.relative_to(ROOT)}", file=sys.stderr)
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in (files or {}).items():
            (folder / path).write_text(text)
        for step in steps:
            run_installer(name, step, folder)
        stamp.touch()
    return folder


def probe(running: Running) -> str:
    """Ask it once for a stream; why it cannot answer one, or nothing. CannotRun when not even a plain answer comes."""
    if problem := _asked(running, plain().body(), "}"):
        raise CannotRun(f"{running.name} does not answer: {problem}")
    return _asked(running, streamed(0).body(), "data: [DONE]")


def _asked(running: Running, body: bytes, ending: str) -> str:
    """What is wrong with the answer to one request, which is to end so; empty when nothing is."""
    url = f"http://{running.address}:{running.port}{CHAT_PATH}"
    given = dict(header.split(": ", 1) for header in running.headers)
    asked = urllib.request.Request(url, body, {"content-type": "application/json", **given})
    try:
        with launch.WITHOUT_PROXY.open(asked, timeout=PROBE_S) as answer:
            told: str = answer.read().decode(errors="replace")
    except urllib.error.HTTPError as refusal:
        return f"status {refusal.code}: {refusal.read(200).decode(errors='replace').strip()}"
    except (OSError, http.client.HTTPException) as error:
        return str(error) or repr(error)
    return "" if told.rstrip().endswith(ending) else f"the answer does not end with {ending}"


class Peer(Target):
    """A target that may turn out not to run, and then is left out."""

    optional = True

    @abstractmethod
    def command(self, place: Place, port: int) -> list[str]:
        """Install it if need be, write what it reads, and say how it is started."""

    @abstractmethod
    def headers(self, place: Place) -> tuple[str, ...]:
        """What its callers send beside the body."""

    def environment(self) -> Mapping[str, str]:
        """Settings that it takes from there."""
        return {}

    def run(self, place: Place) -> Generator[Running, None, None]:
        """Start it, try it, and yield it with what it cannot do."""
        port = launch.free_port()
        settings = [f"{name}={value}" for name, value in self.environment().items()]
        command = ["env", "-C", str(place.folder), *settings, *self.command(place, port)]
        with launch.started(self.name, command, core=place.core, log=place.folder / "log") as process:
            process.wait_for("open port", lambda: launch.accepts(port), START_S)
            running = Running(self.name, port, port, process.pid, self.headers(place), verbatim=False)
            yield replace(running, no_streams=probe(running))


class LiteLLM(Peer):
    """LiteLLM's proxy on uvicorn."""

    name = "litellm"

    def command(self, place: Place, port: int) -> list[str]:
        """With a model list of one."""
        venv = [[str(ROOT / "tools" / "venv.sh"), "venv"]]  # of the quickest Python that there is, as ours
        pip = ["venv/bin/python", "-m", "pip", "install", "--quiet", f"litellm[proxy]=={LITELLM_VERSION}"]
        home = installed("litellm", LITELLM_VERSION, [*venv, pip])
        upstream = {"api_base": f"http://127.0.0.1:{place.upstream_port}/v1", "api_key": "sk-bench"}
        config = {
            "model_list": [{"model_name": MODEL, "litellm_params": {"model": f"openai/{UPSTREAM_MODEL}", **upstream}}],
            "general_settings": {"master_key": MASTER_KEY},
            "litellm_settings": {"telemetry": False},
        }
        path = place.folder / "litellm.yaml"
        path.write_text(yaml.safe_dump(config))
        words = ["--config", str(path), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
        return [str(home / "venv" / "bin" / "litellm"), *words]

    def headers(self, place: Place) -> tuple[str, ...]:
        """The master key."""
        del place
        return (f"authorization: Bearer {MASTER_KEY}",)

    def environment(self) -> Mapping[str, str]:
        """Nothing is fetched, nothing is reported, no line per request."""
        return {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False", "LITELLM_LOG": "ERROR"}


class Portkey(Peer):
    """Portkey's gateway on node."""

    name = "portkey"

    def command(self, place: Place, port: int) -> list[str]:
        """Headless, on loopback."""
        node = launch.program("node")
        if node is None or launch.program("npm") is None:
            raise CannotRun("portkey needs node and npm; on Debian: apt-get install nodejs npm")
        package = f"@portkey-ai/gateway@{PORTKEY_VERSION}"
        npm = ["npm", "install", "--prefix", ".", "--no-audit", "--no-fund", "--silent", package]
        manifest = {"package.json": json.dumps({"overrides": {"@hono/node-server": NODE_SERVER_VERSION}})}
        home = installed("portkey", f"{PORTKEY_VERSION}-{NODE_SERVER_VERSION}", [npm], manifest)
        preload = place.folder / "loopback.cjs"
        preload.write_text(LOOPBACK)
        server = home / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
        return [node, "--require", str(preload), str(server), f"--port={port}", "--headless"]

    def headers(self, place: Place) -> tuple[str, ...]:
        """Where the provider is, and the key for it."""
        return (
            "authorization: Bearer sk-bench",
            "x-portkey-provider: openai",
            f"x-portkey-custom-host: http://127.0.0.1:{place.upstream_port}/v1",
        )

    def environment(self) -> Mapping[str, str]:
        """As in production."""
        return {"NODE_ENV": "production"}


NAMES: Final = ("litellm", "portkey")


def make(names: Sequence[str]) -> list[Target]:
    """The peers of these names, in the order of NAMES."""
    known: dict[str, Target] = {"litellm": LiteLLM(), "portkey": Portkey()}
    return [known[name] for name in NAMES if name in names]
