"""`make run`: serve a config, with the simulated provider beside the gateway when the config names it.

A first config without a provider's key points at `sim` on loopback. This script starts it, waits until it answers,
and then *becomes* the gateway: same process id, so signals, terminal and exit code are the gateway's own and nothing
has to be forwarded. The simulator leaves with its parent (`--exit-with-parent`), however the gateway ends; it has a
session of its own, so Ctrl-C reaches the gateway only and open streams can still drain.

Left out on purpose: restarting a simulator that dies. It is a stand-in for a first look, not a service.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

Address = tuple[str, int]

SIM_READY_S = 10.0
PROBE_EVERY_S = 0.02
CONNECT_S = 0.5


class Refused(Exception):
    """What stands in the way of serving, in words for the person at the terminal."""


def sim_address(config: dict[str, Any]) -> Address | None:
    """Where the config expects the simulator: the loopback base_url of the first provider called `sim…`, if any."""
    for name, provider in (config.get("providers") or {}).items():
        url = urlsplit(str(provider.get("base_url", "")))
        if name.startswith("sim") and url.hostname in {"127.0.0.1", "::1", "localhost"}:
            return url.hostname, url.port or 80
    return None


def listen_addresses(config: dict[str, Any]) -> Iterator[tuple[str, Address]]:
    """Each port the gateway is about to take, with the setting that moves it."""
    for section, port in (("listen", 8080), ("admin", 8081)):
        values = config.get(section) or {}
        yield f"{section}.port", (str(values.get("host", "127.0.0.1")), int(values.get("port", port)))


def answers(address: Address) -> bool:
    """Whether something accepts connections there now."""
    with suppress(OSError), socket.create_connection(address, timeout=CONNECT_S):
        return True
    return False


def require_free(setting: str, address: Address) -> None:
    """Refuse a port that another program serves: SO_REUSEPORT would let two gateways share it without a word."""
    if address[1] and answers(address):
        message = f"{address[0]}:{address[1]} is in use: stop what runs there, or set {setting} to a free port"
        raise Refused(message)


def start_sim(address: Address) -> None:
    """Start the simulator as a child and return once it accepts connections."""
    command = [sys.executable, "-m", "bench.sim", "--port", str(address[1]), "--exit-with-parent"]
    sim = subprocess.Popen(command, cwd=Path(__file__).parent.parent, start_new_session=True)  # noqa: S603 - our own
    deadline = time.monotonic() + SIM_READY_S
    while not answers(address):
        if sim.poll() is not None:
            message = f"the simulated provider ended with code {sim.returncode}; its last words are above"
            raise Refused(message)
        if time.monotonic() > deadline:
            sim.kill()
            message = f"the simulated provider did not answer on port {address[1]} within {SIM_READY_S:.0f} s"
            raise Refused(message)
        time.sleep(PROBE_EVERY_S)


def become_gateway(path: Path) -> NoReturn:
    """Replace this process by `gateway serve`, from the environment that this script runs in."""
    sys.stdout.flush()
    gateway = str(Path(sys.executable).with_name("gateway"))
    os.execv(gateway, [gateway, "serve", "--config", str(path)])  # noqa: S606 - no shell is wanted


def main(arguments: list[str]) -> NoReturn:
    """Serve the config file named on the command line; end with a sentence if that cannot be."""
    path = Path(arguments[0] if arguments else "gateway.yaml")
    try:
        config = yaml.safe_load(path.read_text("utf-8")) or {}
        for setting, address in listen_addresses(config):
            require_free(setting, address)
        if sim := sim_address(config):
            require_free("the base_url of provider sim", sim)
            start_sim(sim)
    except (OSError, yaml.YAMLError, Refused) as error:
        sys.exit(f"make run: {error}")
    become_gateway(path)


if __name__ == "__main__":
    main(sys.argv[1:])
