"""One line on stderr that says what is being measured, what came out last, and how long it still takes."""

import shutil
import sys
import time
from typing import Final

MOST_STRETCHED: Final = 2.0
TRUSTED: Final = 0.2  # of the plan: so much of it stands beside what was measured so far


class Progress:
    """Counts measurements against the expected length of the run; off a terminal each becomes a line of its own."""

    def __init__(self, expected_s: float) -> None:
        self._expected_s = max(expected_s, 1.0)
        self._started = time.monotonic()
        self._planned_done_s = 0.0
        self._terminal = sys.stderr.isatty()

    def step(self, what: str, planned_s: float) -> None:
        """`what` begins now and takes about `planned_s`."""
        share = min(self._planned_done_s / self._expected_s, 1.0)
        elapsed = time.monotonic() - self._started
        left = self._expected_s - self._planned_done_s
        if share > 0:
            # The plan was that much too short or too long so far; a wait at the beginning says nothing about the rest.
            trusted_s = TRUSTED * self._expected_s
            left *= min((elapsed + trusted_s) / (self._planned_done_s + trusted_s), MOST_STRETCHED)
        self._planned_done_s += planned_s
        self._write(f"[{share:4.0%}, {max(left, 0):3.0f} s left] {what}")

    def note(self, text: str) -> None:
        """A line that stays."""
        sys.stderr.write(f"\r\x1b[K{text}\n" if self._terminal else f"{text}\n")
        sys.stderr.flush()

    def _write(self, line: str) -> None:
        if self._terminal:  # a line that is wrapped could not be taken back
            sys.stderr.write(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}")
        else:
            sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    def close(self) -> None:
        """Leave the terminal's line."""
        if self._terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
