"""Leaving when the parent does, so that a killed gateway or test leaves no provider behind.

Linux signals us when the *thread* that forked us ends, which may be one of many in a parent that lives on; so the
signal only asks a question, and the answer is whether our parent is still the one we began with. A slow poll asks
the same, for kernels without the signal and for a parent that died before we could ask for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PR_SET_PDEATHSIG = 1
POLL_S = 1.0


def watch(parent: int, leave: Callable[[], None]) -> None:
    """Call `leave` (once or more) as soon as process `parent` is no longer our parent."""
    loop = asyncio.get_running_loop()

    def check() -> None:
        if os.getppid() != parent:
            leave()

    def poll() -> None:
        check()
        loop.call_later(POLL_S, poll)

    loop.add_signal_handler(signal.SIGUSR1, check)
    with contextlib.suppress(OSError, AttributeError):  # not Linux: the poll alone
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGUSR1)
    poll()
