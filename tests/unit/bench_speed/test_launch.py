"""What the bench starts is pinned, and gone afterwards: its children too, whatever happened meanwhile."""

import http.server
import sys
import threading
from pathlib import Path

import pytest

from bench.speed import launch, procfs
from bench.speed.launch import CannotRun

pytestmark = pytest.mark.slow

STUBBORN_PARENT = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ready", sorted(os.sched_getaffinity(0)), flush=True)
time.sleep(60)
"""


def test_children_in_sessions_of_their_own_end_with_the_block_even_when_it_fails(tmp_path: Path) -> None:
    log, pids = tmp_path / "log", []

    def fail_while_running() -> None:
        with launch.started("parent", [sys.executable, "-c", STUBBORN_PARENT], core=0, log=log) as process:
            process.wait_for("child", lambda: "ready" in log.read_text())
            pids.extend(procfs.tree(process.pid))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_while_running()
    assert len(pids) == 2
    assert not any(procfs.alive(pid) for pid in pids)
    assert "ready [0]" in log.read_text()


def test_what_ends_early_is_reported_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such port')"]
    with (
        pytest.raises(CannotRun, match=r"(?s)status 1.*no such port"),
        launch.started("server", command, core=0, log=tmp_path / "log") as process,
    ):
        process.wait_for("open port", lambda: False)


def test_what_is_never_ready_is_given_up(tmp_path: Path) -> None:
    with (
        pytest.raises(CannotRun, match="no open port within 0 s"),
        launch.started("server", ["sleep", "60"], core=0, log=tmp_path / "log") as process,
    ):
        process.wait_for("open port", lambda: False, timeout_s=0.1)


def test_a_free_port_has_no_listener() -> None:
    port = launch.free_port()
    assert not launch.accepts(port)
    assert not launch.answers(port, "/readyz")


def test_what_we_started_is_asked_without_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ready(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{launch.free_port()}")
    with http.server.HTTPServer(("127.0.0.1", 0), Ready) as server:
        answering = threading.Thread(target=server.handle_request)
        answering.start()
        assert launch.answers(server.server_port, "/readyz")
        answering.join()


def test_what_is_there_needs_no_installing() -> None:
    launch.ensure("sh:dash", "/etc/passwd:base-passwd")


def test_what_is_missing_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need = tmp_path / "need.sh"
    need.write_text('#!/bin/sh\necho "missing: $1" >&2\nexit 1\n')
    need.chmod(0o755)
    monkeypatch.setattr(launch, "NEED", need)
    with pytest.raises(CannotRun, match=r"^missing: cc:gcc$"):
        launch.ensure("cc:gcc")


def test_a_core_that_we_may_not_use_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(CannotRun, match=r"nginx needs core 4096; this process may use \["),
        launch.started("nginx", ["true"], core=4096, log=tmp_path / "log"),
    ):
        pass
