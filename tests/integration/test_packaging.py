"""What a stranger installs: the wheel, in an empty environment with the locked packages and nothing else.

The build backend comes from the environment of the tests, pinned in requirements/build.txt; the build itself needs no
network. Installing fetches the locked packages from the package index, or pip's cache of it.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import gateway
from tests.fakes.patience import PATIENCE_S
from tests.fakes.ports import free_port

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input")
NO_PIP_NEWS = {**os.environ, "PIP_ROOT_USER_ACTION": "ignore"}
CONFIG = """
listen: {{host: 127.0.0.1, port: {port}, workers: 1}}
admin: {{host: 127.0.0.1, port: {admin_port}, token: a-token-of-thirty-two-characters}}
state_dir: {state}
providers:
  local: {{kind: openai, base_url: "http://127.0.0.1:9", api_key: unused}}
models:
  "*": {{targets: [{{provider: local, model: "*"}}]}}
"""


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=NO_PIP_NEWS, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources, so that nothing is left in the checkout."""
    source, out = tmp_path_factory.mktemp("copy") / "source", tmp_path_factory.mktemp("wheel")
    made_here = shutil.ignore_patterns(".*", "build", "dist", "state", "node_modules", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, source, symlinks=True, ignore=made_here)
    run(sys.executable, *PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", out, ".", cwd=source)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin/ of an empty environment with the locked packages and the wheel."""
    place = tmp_path_factory.mktemp("installed")
    venv.create(place, with_pip=True)
    python = place / "bin/python"
    run(python, *PIP, "install", "--require-hashes", "--only-binary=:all:", "-r", ROOT / "requirements/run.txt")
    run(python, *PIP, "install", "--no-deps", "--no-index", wheel)
    return place / "bin"


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    assert wheel.name == f"sluice_gateway-{gateway.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        info = f"sluice_gateway-{gateway.__version__}.dist-info"
        metadata = archive.read(f"{info}/METADATA").decode()
        assert "Name: sluice-gateway\n" in metadata
        assert "License-Expression: Apache-2.0\n" in metadata
        assert archive.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
        assert "gateway = gateway.__main__:main" in archive.read(f"{info}/entry_points.txt").decode()


def test_the_wheel_carries_the_package_and_the_scripts_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    scripts = {f"gateway/lua/{path.name}" for path in (ROOT / "lua").iterdir()}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "gateway").rglob("*.py")}
    assert "gateway/lua/README.md" in scripts
    assert scripts | modules <= names
    rest = {name for name in names - scripts - modules if ".dist-info/" not in name}
    assert rest == {"gateway/py.typed"}


def test_an_installed_gateway_finds_its_scripts_where_a_checkout_does(installed: Path) -> None:
    look = "import importlib.resources as r; print(*sorted(p.name for p in (r.files('gateway') / 'lua').iterdir()))"
    there = run(installed / "python", "-I", "-c", look).split()
    assert there == sorted(path.name for path in (ROOT / "lua").iterdir())


def test_the_locked_packages_are_all_that_the_gateway_wants(installed: Path) -> None:
    assert run(installed / "python", "-m", "pip", "check").strip() == "No broken requirements found."
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert len(wanted) >= 8


def test_an_installed_gateway_explains_itself(installed: Path, tmp_path: Path) -> None:
    answer = run(installed / "gateway", "--help", cwd=tmp_path)
    assert "serve" in answer
    assert "check" in answer


def status_of(url: str) -> int | None:
    """The HTTP status there, or None while nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:  # noqa: S310 - our own address
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return None


@contextmanager
def serving(command: list[str], log: Path, cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as err, subprocess.Popen(command, cwd=cwd, stdout=err, stderr=err) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def await_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while status_of(url) != 200:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def write_config(place: Path, port: int, admin_port: int) -> None:
    config = CONFIG.format(port=port, admin_port=admin_port, state=place / "state")
    (place / "gateway.yaml").write_text(config + "drain_delay_s: 0\n")


@pytest.fixture
def port() -> Iterator[int]:
    with free_port() as found:
        yield found


@pytest.fixture
def admin_port() -> Iterator[int]:
    with free_port() as found:
        yield found


@pytest.fixture
def sim_port() -> Iterator[int]:
    with free_port() as found:
        yield found


def test_an_installed_gateway_serves_and_leaves_when_told(
    installed: Path, tmp_path: Path, port: int, admin_port: int
) -> None:
    write_config(tmp_path, port, admin_port)
    log = tmp_path / "log"
    with serving([str(installed / "gateway"), "serve", "--config", "gateway.yaml"], log, tmp_path) as process:
        await_ready(process, f"http://127.0.0.1:{port}/readyz", log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0, log.read_text()
    assert status_of(f"http://127.0.0.1:{port}/readyz") is None


def test_make_run_serves_beside_its_simulator_and_both_leave_together(
    tmp_path: Path, port: int, admin_port: int, sim_port: int
) -> None:
    write_config(tmp_path, port, admin_port)
    config = tmp_path / "gateway.yaml"
    text = config.read_text().replace("local", "sim")
    config.write_text(text.replace("http://127.0.0.1:9", f"http://127.0.0.1:{sim_port}/v1"))
    log = tmp_path / "log"
    with serving([sys.executable, str(ROOT / "tools/run.py"), str(config)], log, tmp_path) as process:
        await_ready(process, f"http://127.0.0.1:{port}/readyz", log)
        assert status_of(f"http://127.0.0.1:{sim_port}/v1/models") is not None, log.read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0, log.read_text()
    deadline = time.monotonic() + PATIENCE_S
    while status_of(f"http://127.0.0.1:{sim_port}/v1/models") is not None:
        assert time.monotonic() < deadline, "the simulator outlived the gateway"
        time.sleep(0.05)


def test_make_run_names_the_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        (tmp_path / "gateway.yaml").write_text(f'providers: {{sim: {{base_url: "http://127.0.0.1:{taken}"}}}}')
        command = [sys.executable, str(ROOT / "tools/run.py"), str(tmp_path / "gateway.yaml")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 1
    assert f"make run: port {taken} is in use" in done.stderr
