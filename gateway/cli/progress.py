"""How far long work has come: one line on a terminal, drawn over itself, and gone when the work is done.

Says nothing where nobody looks (a pipe, a log) unless it is asked to. Draws a few times a second at most, so it costs
nothing beside the work; the rate is that of the whole run, which is what the time that is left follows from.
"""

import time
from collections.abc import Callable
from typing import Final, TextIO

_EVERY_S: Final = 0.1
_WIDTH: Final = 30
_MEGA: Final = 1_000_000
_SECONDS: Final = 60


class Bar:
    """A bar of bytes; call it with bytes done and all."""

    def __init__(self, stream: TextIO, *, forced: bool = False, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._shown = forced or stream.isatty()
        self._clock_s = clock_s
        self._begun_s = clock_s()
        self._drawn_s = float("-inf")
        self._done = -1
        self._length = 0

    def __call__(self, done: int, total: int) -> None:
        """Show how far it has come."""
        if not self._shown or done == self._done:
            return
        now_s = self._clock_s()
        if now_s - self._drawn_s >= _EVERY_S or done >= total:
            self._drawn_s, self._done = now_s, done
            self._draw(_text(done, total, now_s - self._begun_s))

    def close(self) -> None:
        """Leave the line empty."""
        if self._length:
            self._draw("")
            self._stream.write("\r")
            self._stream.flush()
            self._length = 0

    def _draw(self, text: str) -> None:
        self._stream.write("\r" + text.ljust(self._length))
        self._stream.flush()
        self._length = len(text)


def _text(done: int, total: int, took_s: float) -> str:
    part = min(1.0, done / total) if total else 1.0
    filled = int(part * _WIDTH)
    rate = done / took_s if took_s > 0 else 0.0
    left = f"{_clock(int((total - done) / rate))} left" if rate and done < total else ""
    return f"[{'#' * filled}{'.' * (_WIDTH - filled)}] {part:4.0%}  {rate / _MEGA:,.0f} MB/s  {left}".rstrip()


def _clock(seconds: int) -> str:
    return f"{seconds // _SECONDS}:{seconds % _SECONDS:02d}"
