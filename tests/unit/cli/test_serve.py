"""`gateway serve`: what it refuses to start with, and what it hands to the process model."""

import logging
import socket
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from unittest import mock

import pytest

from gateway.cli import serve
from gateway.config.load import load
from gateway.config.snapshot import SnapshotStore
from gateway.limiter.deny import DENIALS
from gateway.limiter.learned import LEARNED
from gateway.limiter.namekey import FILE, name_key
from gateway.listener.worker import DataPlane
from gateway.nodestate import NODE, NodeState
from gateway.process.settings import ServeSettings, StartError
from gateway.process.worker import WorkerContext
from gateway.segment import Segment
from gateway.telemetry.directory import METRICS
from tests.fakes.transfer import run

CONFIG = """
listen: {host: 127.0.0.1, port: 0, workers: 3, backlog: 99}
admin: {host: 127.0.0.2, port: 0, token: "0123456789abcdef"}
drain_s: 7
drain_delay_s: 1
stuck_s: 4
providers: {one: {kind: openai, api_key: sk-hidden}}
models: {gpt: {targets: [{provider: one, model: gpt-1}]}}
keys: [{id: demo, secret: gw-working}]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "gateway.yaml"
    file.write_text(CONFIG)
    return file


@pytest.fixture(autouse=True)
def _logging_stays() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


class Given:
    """What the process model was handed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int = 0) -> None:
        self.called = 0
        self.settings: ServeSettings
        self.parts: dict[str, Any] = {}
        monkeypatch.setattr(serve, "serve", self._serve)
        self._code = code

    def _serve(self, settings: ServeSettings, worker_main: object, control_main: object, **parts: object) -> int:
        self.called += 1
        self.settings = settings
        self.parts = {"worker_main": worker_main, "control_main": control_main, **parts}
        return self._code


def words(path: Path, *, curl: bool = False, overrides: tuple[str, ...] = ()) -> Namespace:
    return Namespace(config=str(path), set=list(overrides), curl=curl)


# --- refused before anything starts ---------------------------------------------------------------------------------


def test_a_bad_config_does_not_start(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = Given(monkeypatch)
    path.write_text(CONFIG.replace("models:", "modles:"))
    assert serve.run(words(path)) == 1
    assert "modles" in capsys.readouterr().err
    assert given.called == 0


def test_an_admin_port_is_never_without_a_token(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = Given(monkeypatch)
    path.write_text("\n".join(line for line in CONFIG.splitlines() if not line.startswith("admin:")))
    assert serve.run(words(path)) == 1
    assert "admin.token" in capsys.readouterr().err
    assert given.called == 0


# --- what is handed over --------------------------------------------------------------------------------------------


def test_settings_are_the_configs_with_its_overrides(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = Given(monkeypatch, code=5)
    assert serve.run(words(path, overrides=("listen.workers=2", "drain_s=9"))) == 5
    settings = given.settings
    assert (settings.host, settings.port, settings.workers, settings.backlog) == ("127.0.0.1", 0, 2, 99)
    assert (settings.admin_host, settings.admin_port) == ("127.0.0.2", 0)
    assert (settings.drain_s, settings.drain_delay_s, settings.stuck_s) == (9, 1, 4)
    assert settings.state_dir == path.parent / "state"
    assert settings.overrides == ("listen.workers=2", "drain_s=9")
    assert [section.name for section in settings.sections] == [
        NODE.name, METRICS.name, "limits", LEARNED.name, DENIALS.name
    ]  # fmt: skip
    assert settings.preflight[-6:] == ("--config", str(path), "--set", "listen.workers=2", "--set", "drain_s=9")
    assert "check" in settings.preflight


def test_control_counts_limits_as_workers_do(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = Given(monkeypatch)
    serve.run(words(path, overrides=("limits.domain=shop",)))
    assert given.parts["control_main"].keywords["limits"].domain == "shop"


def test_publishing_writes_the_snapshot_that_workers_load(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = Given(monkeypatch)
    serve.run(words(path))
    generation = given.parts["publish"]()
    assert SnapshotStore(path.parent / "state").load(generation).config.drain_s == 7


def test_a_config_that_turned_bad_meanwhile_is_a_start_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = Given(monkeypatch)
    serve.run(words(path))
    path.write_text("modles: {}\n")
    with pytest.raises(StartError, match="modles"):
        given.parts["publish"]()


def test_a_state_directory_that_cannot_be_written_is_a_start_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = Given(monkeypatch)
    serve.run(words(path))
    (path.parent / "state").mkdir()
    (path.parent / "state" / "snapshots").write_text("a file in its place")
    with pytest.raises(StartError, match="snapshots"):
        given.parts["publish"]()


def test_a_full_disk_is_told_with_the_directory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = Given(monkeypatch)
    serve.run(words(path))
    full = mock.Mock(side_effect=OSError(28, "No space left on device"))
    monkeypatch.setattr(serve, "boot_snapshot", full)
    with pytest.raises(StartError, match="state: No space left on device: a start needs room there"):
        given.parts["publish"]()


def test_a_start_settles_on_the_key_of_peoples_names(
    path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    each = "rules: [{name: each, per: [org, user], requests: 1, every: minute}]"
    path.write_text(CONFIG + f"limits: {{{each}}}\n")
    given = Given(monkeypatch)
    serve.run(words(path))
    given.parts["publish"]()
    key = name_key(path.parent / "state")
    given.parts["publish"]()
    assert name_key(path.parent / "state") == key
    assert "names of people can be guessed" not in capfd.readouterr().err
    path.write_text(CONFIG + f'limits: {{store: "redis://127.0.0.1:1", {each}}}\n')
    given.parts["publish"]()
    assert name_key(path.parent / "state") == b"main"
    assert "names of people can be guessed" in capfd.readouterr().err


def test_a_worker_that_knows_no_key_of_peoples_names_does_not_serve(
    path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    given = Given(monkeypatch)
    serve.run(words(path))
    generation = given.parts["publish"]()
    (path.parent / "state" / FILE).unlink()
    segment = Segment.create(list(given.settings.sections), 6)
    given.parts["caretaker"].open(NodeState(segment))
    context = WorkerContext(given.settings, segment, NodeState(segment), 1, generation=generation, boot_ns=0)

    async def main() -> None:
        with pytest.raises(SystemExit):
            given.parts["worker_main"](context)

    run(main())
    assert "limits.key is missing or damaged: a restart of the node writes it anew" in capfd.readouterr().err


def test_a_worker_gets_its_data_plane(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = Given(monkeypatch)
    serve.run(words(path))
    generation = given.parts["publish"]()
    segment = Segment.create(list(given.settings.sections), 6)
    given.parts["caretaker"].open(NodeState(segment))
    context = WorkerContext(given.settings, segment, NodeState(segment), 1, generation=generation, boot_ns=0)

    async def main() -> None:
        plane = given.parts["worker_main"](context)
        assert isinstance(plane, DataPlane)
        await plane.start()
        assert plane.ssl_context is None
        await plane.stop()

    run(main())


# --- ready ----------------------------------------------------------------------------------------------------------


class Listening:
    """A node whose sockets have their ports."""

    def __init__(self) -> None:
        self.data = [socket.create_server(("127.0.0.1", 0))]
        self.admin = socket.create_server(("127.0.0.1", 0))
        self.listening = self

    def close(self) -> None:
        self.data[0].close()
        self.admin.close()


@pytest.mark.parametrize("curl", [False, True])
def test_ready_is_said_with_the_ports_and_a_request_only_when_asked_for(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, curl: bool
) -> None:
    given = Given(monkeypatch)
    serve.run(words(path, curl=curl))
    node = Listening()
    records: list[str] = []
    monkeypatch.setattr(serve._log, "info", lambda text, *values: records.append(text % values))
    given.parts["on_ready"](cast("Any", node))
    port, admin = node.data[0].getsockname()[1], node.admin.getsockname()[1]
    node.close()
    assert records == [f"ready: data on port {port}, admin on port {admin}"]
    said = capsys.readouterr().err
    assert ("gw-working" in said) == curl
    assert (f":{port}/v1/chat/completions" in said) == curl
    assert load(str(path)).keys[0].secret.reveal() == "gw-working"
