"""The units in systemd/: sound in systemd's own eyes, and in step with what the gateway does.

systemd checks them without running: nothing here needs to be root or a booted machine.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config.schema import Config, Listen
from tests.fakes.patience import PATIENCE_S

pytestmark = pytest.mark.slow

UNITS = Path(__file__).parents[2] / "systemd"
INSTALLED = "/opt/sluice/current/bin/python"
EXPOSURE_AT_MOST = 2.0  # of 10, as systemd-analyze counts
MARGIN_S = 10  # for the workers to end once their drain is over, and then control


def settings(unit: str) -> Iterator[tuple[str, str]]:
    for line in (UNITS / unit).read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            yield name, value


def setting(unit: str, name: str) -> str:
    values = [value for key, value in settings(unit) if key == name]
    assert len(values) == 1, f"{unit} says {name} {len(values)} times"
    return values[0]


@pytest.fixture
def installed(tmp_path: Path) -> list[str]:
    """The units as they are, but for a program that exists on this machine in the place of the installed one."""
    stand_in = shutil.which("true")
    assert stand_in
    for unit in [*UNITS.glob("*.service"), *UNITS.glob("*.socket")]:
        (tmp_path / unit.name).write_text(unit.read_text().replace(INSTALLED, stand_in))
    return sorted(str(path) for path in tmp_path.iterdir())


def analyze(*arguments: str) -> str:
    program = shutil.which("systemd-analyze")
    assert program, "systemd-analyze is missing; `make test` installs it as root, else: sudo apt-get install systemd"
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=5 * PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_systemd_finds_nothing_to_say_about_the_units(installed: list[str]) -> None:
    assert len(installed) == 3
    assert analyze("verify", "--man=no", *installed) == ""


def test_the_service_is_exposed_as_little_as_promised(installed: list[str]) -> None:
    service = next(unit for unit in installed if unit.endswith("gateway.service"))
    report = analyze("security", "--offline=true", "--no-pager", service)
    overall = re.search(r"Overall exposure level for gateway\.service: ([0-9.]+)", report)
    assert overall, report
    assert float(overall[1]) <= EXPOSURE_AT_MOST


def test_a_drain_has_time_to_finish_before_systemd_kills() -> None:
    assert float(setting("gateway.service", "TimeoutStopSec")) >= Config().drain_s + MARGIN_S


def test_the_watchdog_waits_longer_than_the_gateway_does_for_a_stuck_worker() -> None:
    assert float(setting("gateway.service", "WatchdogSec")) >= 2 * Config().stuck_s


def test_a_full_worker_has_descriptors_for_both_sides_of_each_connection() -> None:
    assert int(setting("gateway.service", "LimitNOFILE")) > 2 * Listen().max_connections


def test_sockets_are_named_and_placed_as_the_gateway_takes_them() -> None:
    listen = [value for name, value in settings("gateway.socket") if name == "ListenStream"]
    assert len(listen) >= 2, "one line a worker"
    assert len(set(listen)) == 1, "one ReusePort group"
    assert listen[0].endswith(f":{Listen().port}")
    assert setting("gateway.socket", "ReusePort") == "yes"
    assert setting("gateway.socket", "FileDescriptorName") == "data"
    assert setting("gateway-admin.socket", "FileDescriptorName") == "admin"
    assert setting("gateway-admin.socket", "ListenStream") == "127.0.0.1:8081"
