"""A forked process never returns into its parent's stack, whatever happens in it. The fork itself is played."""

import faulthandler
import logging
import os
import signal
from collections.abc import Callable
from functools import partial
from typing import NoReturn

import pytest

from gateway.process import child, linux


class Ended(BaseException):
    """Stands in for the end of the process."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the child did, in order, with everything that would touch this process replaced."""
    made: list[str] = []

    def note(name: str) -> Callable[..., bool]:
        def noted(*arguments: object) -> bool:
            made.append(" ".join([name, *(str(argument) for argument in arguments)]))
            return True

        return noted

    def leave(code: int) -> NoReturn:
        made.append(f"exit {code}")
        raise Ended

    monkeypatch.setattr(os, "fork", lambda: 0)
    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(linux, "set_title", note("title"))
    monkeypatch.setattr(linux, "forbid_core_dumps", note("no core"))
    monkeypatch.setattr(linux, "signal_on_parent_death", note("parent"))
    monkeypatch.setattr(signal, "signal", note("on"))
    monkeypatch.setattr(logging, "shutdown", note("flush logs"))
    monkeypatch.setattr(faulthandler, "enable", note("dump on abort"))
    return made


def played(run: Callable[[], int], calls: list[str]) -> None:
    with pytest.raises(Ended):
        child.fork("gw-test", run, lambda: calls.append("let go"))


def test_it_lets_go_first_then_settles_then_runs(calls: list[str]) -> None:
    played(lambda: 7, calls)
    assert calls[0] == "let go"
    assert f"on {signal.SIGINT} {signal.SIG_IGN}" in calls  # Ctrl-C is the supervisor's to answer
    assert f"on {signal.SIGTERM} {signal.SIG_DFL}" in calls
    assert calls[-6:] == [
        "title gw-test",
        "no core",
        "dump on abort",
        f"parent {signal.SIGTERM} {os.getpid()}",
        "flush logs",
        "exit 7",
    ]


@pytest.mark.parametrize("error", [RuntimeError("x"), SystemExit(3), KeyboardInterrupt()])
def test_whatever_is_raised_ends_the_process_with_a_traceback(
    calls: list[str], caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    def fail() -> int:
        raise error

    played(fail, calls)
    assert calls[-2:] == ["flush logs", "exit 1"]
    assert caplog.records[0].getMessage() == "gw-test ends"


def test_a_child_whose_parent_is_gone_already_does_not_run(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "signal_on_parent_death", lambda *_: False)
    ran = [0]
    played(partial(ran.pop, 0), calls)
    assert ran == [0]
    assert "exit 1" in calls


def test_the_parent_gets_the_pid_and_its_signals_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fork", lambda: 4321)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert child.fork("gw-test", lambda: 0, lambda: None) == 4321
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
