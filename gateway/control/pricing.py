"""The published prices in force on this node: whether a snapshot's are still those, and how others are made.

They are those of the installed version of genai-prices on the day (UTC): what the edition in the snapshot was made from
is compared with that. Where it is something else a process of its own reads the package, since that takes 0.2 to 0.5 s
and 32 MB which neither the supervisor nor control should keep; nothing is fetched from anywhere.

A node starts with the prices it has, however old: only one that has none waits for the first edition. Control looks
again when it starts, at each reload, and every LOOK_S, so a new day and a new version act without anybody's doing.

Invariant: prices are replaced by others and never by none. Where the package has gone or cannot be read the ones that
are there stay in force, and the log says so and what to do, once for each reason. Left out: publishing
(`publisher.py`), and what a price is (`ledger/`).
"""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

from gateway.config.keys import KeyRecord
from gateway.config.schema import Config
from gateway.ledger.book import edition
from gateway.ledger.coverage import counts_money, unpriced
from gateway.ledger.prices import PriceList

LOOK_S: Final = 600.0
LIMIT_S: Final = 10.0
PACKAGE: Final = "genai-prices"
EXTRA: Final = "'sluice-gateway[prices]'"
_NAMED: Final = 5
_READ: Final = (sys.executable, "-P", "-m", "gateway.ledger.catalogue")  # -P: nothing from where the node was started
_ROOT: Final = str(Path(__file__).parents[2])
_log: Final = logging.getLogger("gateway.prices")


def _today() -> date:
    return datetime.now(UTC).date()


class PricesUnreadable(Exception):
    """The installed package gave no prices; the message says why."""


def installed() -> str:
    """The version of the package, "" where it is not installed."""
    from importlib import invalidate_caches, metadata  # noqa: PLC0415 - seldom needed, and a start should not wait

    invalidate_caches()  # it may have come since the last look
    try:
        found = metadata.metadata(PACKAGE)
    except metadata.PackageNotFoundError:
        return ""
    return next(iter(found.get_all("Version", ())), "")  # "": an installation that was cut short


def make(version: str, day: date, command: tuple[str, ...] = _READ, limit_s: float = LIMIT_S) -> bytes:
    """The edition of a day, by a process of its own. Raises PricesUnreadable."""
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and module
            [*command, day.isoformat(), version],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limit_s,
            check=False,
            env=_environment(),
        )
    except subprocess.TimeoutExpired:
        raise PricesUnreadable(f"they were not read within {limit_s:g} s") from None
    except OSError as error:
        raise PricesUnreadable(f"{command[0]} cannot be run: {error.strerror or error}") from error
    if done.returncode or edition(done.stdout) is None:
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise PricesUnreadable(said or f"reading them ended with code {done.returncode}")
    return done.stdout


def _environment() -> dict[str, str]:
    """This process's, in which the gateway is found wherever it was started from."""
    path = [part for part in (os.environ.get("PYTHONPATH", ""), _ROOT) if part]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def at_start(kept: bytes) -> bytes:
    """The prices a node starts with: those it has, or else the first."""
    if edition(kept) is not None:
        return kept
    first = Pricing().renewed(kept)
    if first != kept:
        _log.info("%s come in force", named(first))
    return first


def unpriced_warning(config: Config, keys: Iterable[KeyRecord], prices: PriceList) -> str:
    """What to tell of models whose use a limit in money cannot count, "" for nothing. A million keys take seconds."""
    names = unpriced(config, prices)
    if not names or not counts_money(config, keys):
        return ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    refused = config.limits.unpriced == "refuse"
    what = "are refused where a limit in USD applies" if refused else "count as nothing in limits in USD"
    return (
        f"no price is known of {', '.join(names[:_NAMED])}{more}: requests for them, also as a fallback, {what}; "
        f"give them a `price`, or install or upgrade {EXTRA}, and reload"
    )


class Pricing:
    """The prices in force, as often as they are asked for; one thread at a time."""

    def __init__(
        self,
        make: Callable[[str, date], bytes] = make,
        installed: Callable[[], str] = installed,
        today: Callable[[], date] = _today,
    ) -> None:
        self._make = make
        self._installed = installed
        self._today = today
        self._latest = b""  # what was made last, published or not
        self._said = ""

    def renewed(self, kept: bytes) -> bytes:
        """The prices to publish in place of `kept`, which is `kept` itself while nothing in it has changed."""
        version, day = self._installed(), self._today()
        if not version:
            self._not_installed(kept)
            return kept
        newest = next((raw for raw in (kept, self._latest) if _made_from(raw, version, day)), b"")
        if not newest:
            try:
                newest = self._latest = self._make(version, day)
            except PricesUnreadable as error:
                self._say(logging.WARNING, f"the prices of {PACKAGE} {version} cannot be read: {error}; {_until(kept)}")
                return kept
        self._said = ""
        return kept if _same_prices(newest, kept) else newest

    def asked(self, kept: bytes) -> bytes:
        """As `renewed`, for somebody who asks: what is wrong is said again."""
        self._said = ""
        return self.renewed(kept)

    def _not_installed(self, kept: bytes) -> None:
        if kept:
            self._say(logging.WARNING, f"{PACKAGE} is not installed any more (install {EXTRA}); {_until(kept)}")
        else:
            self._say(logging.INFO, f"no published prices: {PACKAGE} is not installed (install {EXTRA} to have them)")

    def _say(self, level: int, message: str) -> None:
        if message != self._said:
            self._said = message
            _log.log(level, "%s", message)


def named(raw: bytes) -> str:
    """Which prices these are, for people."""
    found = edition(raw)
    return "no published prices" if found is None else f"the prices of {PACKAGE} {found.version} on {found.day}"


def _until(kept: bytes) -> str:
    if edition(kept) is None:
        return "until they can be, only models with a `price` in the config have one"
    return f"{named(kept)} stay in force"


def _made_from(raw: bytes, version: str, day: date) -> bool:
    found = edition(raw)
    return found is not None and (found.version, found.day) == (version, day.isoformat())


def _same_prices(raw: bytes, other: bytes) -> bool:
    found = edition(raw)
    return found is not None and found.same_prices(edition(other))
