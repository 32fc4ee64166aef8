"""`make run`: serve a config, with the simulated provider beside the gateway when the config names it.

A first config without a provider's key points at `sim` on loopback. This script starts it, waits until it answers,
and then *becomes* the gateway: same process id, so signals, terminal and exit code are the gateway's own and nothing
has to be forwarded. The simulator leaves with its parent (`--exit-with-parent`), however the gateway ends; it has a
session of its own, so Ctrl-C reaches the gateway only and open streams can still drain.

Left out on purpose: restarting a simulator that dies, which is a stand-in for a first look and no service; and what is
wrong with the config or its ports, which the gateway says itself.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import yaml

Address = tuple[str, int]

CHECKOUT = Path(__file__).parent.parent
LOOPBACK = {"127.0.0.1", "::1", "localhost"}
SIM_READY_S = 10.0
PROBE_EVERY_S = 0.02
CONNECT_S = 0.5


class Refused(Exception):
    """What stands in the way of serving, in words for the person at the terminal."""


def providers_in(path: Path) -> dict[str, Any]:
    """The config's providers; none if it cannot be read, which the gateway is about to explain."""
    with suppress(OSError, UnicodeDecodeError, yaml.YAMLError):
        config = yaml.safe_load(path.read_text("utf-8"))
        providers = config.get("providers") if isinstance(config, dict) else None
        if isinstance(providers, dict):
            return {str(name): provider for name, provider in providers.items() if isinstance(provider, dict)}
    return {}


def sim_address(providers: dict[str, Any]) -> Address | None:
    """Where the simulator is expected: the loopback base_url of the first provider called `sim…`, if there is one."""
    for name, provider in providers.items():
        with suppress(ValueError):  # a port that is no number
            url = urlsplit(str(provider.get("base_url", "")))
            if name.startswith("sim") and url.hostname in LOOPBACK and url.port:
                return url.hostname, url.port
    return None


def answers(address: Address) -> bool:
    """Whether something accepts connections there now."""
    with suppress(OSError), socket.create_connection(address, timeout=CONNECT_S):
        return True
    return False


def start_sim(host: str, port: int) -> None:
    """Start the simulator as a child and return once it accepts connections; raises Refused if it cannot."""
    if answers((host, port)):
        raise Refused(f"port {port} is in use: stop what runs there, or change the port in provider sim's base_url")
    place = ["--host", host, "--port", str(port)]
    command = [sys.executable, "-m", "bench.sim", *place, "--quiet", "--exit-with-parent", str(os.getpid())]
    sim = subprocess.Popen(command, cwd=CHECKOUT, start_new_session=True)  # noqa: S603 - our own program
    deadline = time.monotonic() + SIM_READY_S
    while not answers((host, port)):
        if sim.poll() is not None:
            raise Refused(f"the simulated provider ended with code {sim.returncode}; its last words are above")
        if time.monotonic() > deadline:
            sim.kill()
            raise Refused(f"the simulated provider did not answer on port {port} within {SIM_READY_S:.0f} s")
        time.sleep(PROBE_EVERY_S)


def become_gateway(path: Path) -> NoReturn:
    """Replace this process by `gateway serve`, from the environment that this script runs in."""
    sys.stdout.flush()
    gateway = str(Path(sys.executable).with_name("gateway"))
    os.execv(gateway, [gateway, "serve", "--curl", "--config", str(path)])  # noqa: S606 - no shell is wanted


def main(arguments: list[str]) -> NoReturn:
    """Serve the config file named on the command line; end with a sentence if that cannot be."""
    path = Path(arguments[0] if arguments else "gateway.yaml")
    try:
        if address := sim_address(providers_in(path)):
            start_sim(*address)
    except (OSError, Refused) as error:
        sys.exit(f"make run: {error}")
    become_gateway(path)


if __name__ == "__main__":
    main(sys.argv[1:])
