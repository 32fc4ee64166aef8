"""A bar is drawn over itself on a terminal, seldom, and leaves nothing behind."""

import io

import pytest

from gateway.cli.progress import Bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def screen(text: str) -> str:
    """What stands on the line after all of it."""
    shown = ""
    for drawn in text.split("\r"):
        shown = drawn + shown[len(drawn) :]
    return shown


def test_how_far_how_fast_and_how_long() -> None:
    terminal, clock = Terminal(), Clock()
    bar = Bar(terminal, clock_s=clock)
    clock.now_s += 2
    bar(250_000_000, 1_000_000_000)
    assert screen(terminal.getvalue()) == "[#######.......................]  25%  125 MB/s  0:06 left"
    clock.now_s += 6
    bar(1_000_000_000, 1_000_000_000)
    assert screen(terminal.getvalue()).rstrip() == "[##############################] 100%  125 MB/s"


def test_minutes() -> None:
    terminal, clock = Terminal(), Clock()
    bar = Bar(terminal, clock_s=clock)
    clock.now_s += 1
    bar(1_000_000, 601_000_000)
    assert screen(terminal.getvalue()).endswith("1 MB/s  10:00 left")


def test_it_is_drawn_seldom_and_once_at_the_end() -> None:
    terminal, clock = Terminal(), Clock()
    bar = Bar(terminal, clock_s=clock)
    for done in range(1, 1000):
        clock.now_s += 0.001
        bar(done, 1000)
    assert 8 <= terminal.getvalue().count("\r") <= 11
    before = terminal.getvalue().count("\r")
    for _ in range(5):
        bar(1000, 1000)
    assert terminal.getvalue().count("\r") == before + 1


def test_it_leaves_an_empty_line() -> None:
    terminal = Terminal()
    bar = Bar(terminal)
    bar(10, 10)
    bar.close()
    assert screen(terminal.getvalue()).strip() == ""
    assert terminal.getvalue().endswith("\r")
    length = len(terminal.getvalue())
    bar.close()
    assert len(terminal.getvalue()) == length


@pytest.mark.parametrize(("forced", "drawn"), [(False, False), (True, True)])
def test_where_nobody_looks_it_is_drawn_only_if_asked(forced: bool, drawn: bool) -> None:
    log = io.StringIO()
    bar = Bar(log, forced=forced)
    bar(1, 2)
    bar.close()
    assert bool(log.getvalue()) == drawn


def test_nothing_to_do_is_all_done() -> None:
    terminal, clock = Terminal(), Clock()
    Bar(terminal, clock_s=clock)(0, 0)
    assert "100%" in terminal.getvalue()
