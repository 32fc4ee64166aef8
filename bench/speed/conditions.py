"""Under which conditions the figures were taken: without them a number is worth little."""

import importlib.metadata
import os
import platform
import re
import ssl
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench.speed import launch, procfs

PACKAGES: Final = ("uvloop", "aiohttp", "httptools", "msgspec")


def cpu_model() -> str:
    """As the kernel names it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine() or "unknown"


def slug(text: str) -> str:
    """Lower case words joined by hyphens, for a folder's name."""
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((?:r|tm)\)", "", text.lower())).strip("-")


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)  # noqa: S603 - versions
    except (OSError, subprocess.TimeoutExpired):
        return "absent"
    return (done.stdout + done.stderr).strip().partition("\n")[0]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return "unknown"


def gather(arguments: Sequence[str], module: str = "bench.speed") -> dict[str, str]:
    """Name and value of everything worth knowing, in the order of the report; `module` is what was run."""
    memory_kb = _read("/proc/meminfo").split()[1]
    packages = ", ".join(f"{package} {_version(package)}" for package in PACKAGES)
    nginx = launch.program("nginx")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": " ".join([f"python -m {module}", *arguments]),
        "machine": f"{cpu_model()}, {os.cpu_count()} cores, {int(memory_kb) / 1048576:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_version()}; {packages}",
        "gateway": _version("sluice-gateway"),
        "nginx": _first_line(nginx, "-v").rpartition("/")[2] if nginx else "absent",
        "compiler": _first_line("cc", "--version"),
        "openssl": ssl.OPENSSL_VERSION,
        "loopback": f"plain HTTP unless TLS is said; {_read('/proc/sys/net/ipv4/tcp_congestion_control')}",
        "descriptors": f"{procfs.raise_descriptor_limit():,} a process",
        "load before": " ".join(_read("/proc/loadavg").split()[:3]),
    }


def folder_name(date: str, kind: str = "") -> str:
    """`<date>-<machine>`, the folder of a result, or `<date>-<machine>-<kind>`."""
    return "-".join([date[:10], slug(cpu_model()), *([kind] if kind else [])])
