"""The handover survives the exec, or leaves everything as it was. The exec itself is played."""

import os
import signal
import time
from typing import NoReturn

import msgspec
import pytest

from gateway.process import upgrade
from gateway.process.settings import StartError
from gateway.process.upgrade import HandedWorker, Handover, Preflight, execute, take_handover


@pytest.fixture
def handover() -> Handover:
    fds = [os.memfd_create(f"fd{number}") for number in range(5)]
    return Handover(
        pid=os.getpid(),
        segment_fd=fds[0],
        data_fds=fds[1:3],
        data_open=1,
        admin_fd=fds[3],
        lock_fd=fds[4],
        lock_path="/somewhere/lock",
        generation=7,
        workers=[HandedWorker(pid=11, seat=0, slot=3, born_ns=99)],
    )


def environment_with(content: bytes) -> dict[str, str]:
    fd = os.memfd_create("handover", 0)
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return {upgrade._VARIABLE: str(fd)}


def test_what_is_handed_over_is_what_the_next_build_takes(handover: Handover, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Handover | None] = []

    def executed(file: str, arguments: list[str], environ: dict[str, str]) -> NoReturn:
        assert (file, arguments) == ("gateway", ["gateway", "serve"])
        assert all(os.get_inheritable(fd) for fd in handover.descriptors())
        assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        kept = {**environ, upgrade._VARIABLE: str(os.dup(int(environ[upgrade._VARIABLE])))}
        seen.append(take_handover(kept))
        assert upgrade._VARIABLE not in kept
        raise FileNotFoundError(2, "gone")

    monkeypatch.setattr(os, "execvpe", executed)
    with pytest.raises(FileNotFoundError):
        execute(handover, ["gateway", "serve"])
    assert seen == [handover]
    assert not any(os.get_inheritable(fd) for fd in handover.descriptors())
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_first_start_has_no_handover() -> None:
    assert take_handover({}) is None


@pytest.mark.parametrize("change", [{"version": 2}, {"pid": 1}])
def test_a_handover_meant_for_another_is_refused(handover: Handover, change: dict[str, int]) -> None:
    other = msgspec.structs.replace(handover, **change)
    with pytest.raises(StartError, match="is not for us: restart"):
        take_handover(environment_with(msgspec.json.encode(other)))


def test_a_handover_of_unknown_form_is_refused() -> None:
    with pytest.raises(StartError, match="unknown form"):
        take_handover(environment_with(b'{"pid": 1}'))


def test_the_preflight_does_not_speak_to_the_service_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}

    def spawned(file: str, arguments: list[str], environ: dict[str, str], **options: object) -> int:
        seen.update(file=file, arguments=arguments, environ=environ, **options)
        return 4242

    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    monkeypatch.setattr(os, "posix_spawnp", spawned)
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append((pid, number)))
    until = time.monotonic_ns()
    preflight = Preflight.start(["gateway", "check"], until)
    assert (preflight.pid, preflight.until_ns) == (4242, until)
    assert isinstance(seen["environ"], dict)
    assert "NOTIFY_SOCKET" not in seen["environ"]
    assert "PATH" in seen["environ"]
    assert seen["setsigmask"] == []
    preflight.kill()
    assert killed == [(4242, signal.SIGKILL)]
