"""The first moments of a forked process: what it lets go of, and how it ends.

A child inherits everything the supervisor has, so it must drop the supervisor's signal queue before any signal
arrives, and must never return into the supervisor's stack. Ctrl-C in a terminal reaches the whole process group:
children ignore it and wait for the supervisor's order.
"""

import faulthandler
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Final, NoReturn

from gateway.process import linux
from gateway.process.signals import HANDLED, blocked

_log: Final = logging.getLogger("gateway.process")
_IGNORED: Final = frozenset({signal.SIGINT, signal.SIGHUP, signal.SIGUSR2})


def fork(title: str, run: Callable[[], int], let_go: Callable[[], None]) -> int:
    """Fork a process that does `let_go`, then `run`, and exits with its result; returns the pid to the parent."""
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    with blocked():
        pid = os.fork()
        if pid == 0:
            _live(title, run, let_go, parent)
    return pid


def _live(title: str, run: Callable[[], int], let_go: Callable[[], None], parent: int) -> NoReturn:
    code = 1
    try:
        let_go()
        _settle(title, parent)
        code = run()
    except BaseException:  # noqa: BLE001  whatever it is, it must not return into the supervisor's stack
        _log.exception("%s ends", title)
    finally:
        logging.shutdown()
        os._exit(code)


def _settle(title: str, parent: int) -> None:
    for number in HANDLED:
        signal.signal(number, signal.SIG_IGN if number in _IGNORED else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    linux.set_title(title)
    linux.forbid_core_dumps()
    faulthandler.enable()  # the supervisor ends a stuck process by SIGABRT, which prints where it was
    if not linux.signal_on_parent_death(signal.SIGTERM, parent):
        os._exit(1)
