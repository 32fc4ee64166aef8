"""What is wrong with a program's words or its folder is told at once; what ends it early is a line and a status."""

import argparse
import errno
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from bench import program
from bench.speed.launch import CannotRun


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (program.number(0.5), "0.5", 0.5),
        (program.number(0, 1), "1", 1.0),
        (program.count(), "1", 1),
        (program.count(0), "0", 0),
        (program.names(("a", "b", "c")), "c,a", ("a", "c")),
    ],
)
def test_good_words_are_taken(parse: Callable[[str], object], text: str, value: object) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text", "said"),
    [
        (program.number(0.5), "0.4", "'0.4' is not a number of at least 0.5"),
        (program.number(0, 1), "2", "'2' is not a number between 0 and 1"),
        (program.number(1), "many", "'many' is not a number of at least 1"),
        (program.number(1), "nan", "'nan' is not a number"),
        (program.number(1), "inf", "'inf' is not a number"),
        (program.count(), "0", "'0' is not a whole number of at least 1"),
        (program.count(), "1.5", "'1.5' is not a whole number of at least 1"),
        (program.count(), "9" * 13, "is not a whole number"),
        (program.names(("a", "b")), "a,c", "unknown: c; known: a, b"),
        (program.names(("a", "b")), "", "unknown: ; known: a, b"),
    ],
)
def test_wrong_words_are_told(parse: Callable[[str], object], text: str, said: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=said):
        parse(text)


def test_a_folder_that_can_be_made_is_not_made_yet(tmp_path: Path) -> None:
    program.require_writable(tmp_path / "results" / "of" / "today")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(CannotRun, match="no folder that may be written"):
        program.require_writable(file / "out")
    with pytest.raises(CannotRun, match="no folder that may be written"):
        program.require_writable(Path("/proc/self/out"))


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(program.LEAST_FREE_BYTES - 1))
    with pytest.raises(CannotRun, match="disk is full"):
        program.require_writable(tmp_path)


def test_where_a_result_went_is_told_and_where_it_could_not_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with program.writing(tmp_path):
        (tmp_path / "report.md").touch()
    assert capsys.readouterr().err == f"written to {tmp_path}\n"
    with pytest.raises(CannotRun, match=r"could not be written.*No space left"), program.writing(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert capsys.readouterr().err == ""


def cannot() -> int:
    raise CannotRun("cc is missing")


def full() -> int:
    raise OSError(errno.ENOSPC, "No space left on device", "/tmp/log")  # noqa: S108 - a name to be told


def interrupted() -> int:
    signal.raise_signal(signal.SIGINT)
    return 0


@pytest.mark.parametrize(
    ("work", "status", "said"),
    [
        (lambda: 7, 7, ""),
        (cannot, program.CANNOT_RUN, "\nbench.x cannot run: cc is missing\n"),
        (full, program.CANNOT_RUN, "\nbench.x cannot run: [Errno 28] No space left on device: '/tmp/log'\n"),
        (interrupted, 130, "\nbench.x: stopped\n"),
    ],
)
def test_how_it_ended_is_the_status(
    work: Callable[[], int], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.ended("bench.x", work) == status
    assert capsys.readouterr().err == said


def test_a_folder_that_may_not_even_be_looked_at_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, look = tmp_path / "hidden" / "out", Path.stat

    def denied(path: Path, **given: bool) -> os.stat_result:
        if path == hidden:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return look(path, **given)

    monkeypatch.setattr(Path, "stat", denied)
    monkeypatch.setattr("os.access", lambda path, mode: path == tmp_path / "hidden" and not mode & os.W_OK)
    hidden.parent.mkdir()
    with pytest.raises(CannotRun, match="no folder that may be written"):
        program.require_writable(hidden)


def test_what_is_nobody_elses_fault_is_not_hidden() -> None:
    def defect() -> int:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "raw.json")

    with pytest.raises(FileNotFoundError):
        program.ended("bench.x", defect)
