"""Chains that nobody writes any more: control begins their next segment, so that their time runs like that of the rest.

A worker slot that is gone (fewer workers, an upgrade that uses the other slots) leaves a chain whose newest segment
would stay for ever: retention drops whole segments behind which the chain has gone on, and manifests are needed for as
long as a line they cover is kept. So once a day (or each `segment_s`, where that is longer) such a chain gets a segment
that holds its first line and nothing else; half a line that a killed worker left is repaired on the way.

Invariants: who holds a chain's lock writes it, and nobody else; a worker that wants a chain in the very moment that
control has it takes another one, as it would from any other process. Left out: control's own chain, which ages by
itself.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.control import inventory
from gateway.journal import layout
from gateway.journal.chain import Chain, NotWritten, Origin, SegmentFile
from gateway.journal.disk import Disk
from gateway.journal.end import ForeignChain, with_lines
from gateway.journal.opening import signed_end
from gateway.journal.recover import NoFreeChain, Signer, lock_chain, open_chain
from gateway.journal.signing import SigningError
from gateway.units import US_PER_S

REST_S: Final = 86_400.0
OPENED_BY: Final = "idle"
_log: Final = logging.getLogger("gateway.retention")


class IdleChains:
    """`turn` blocks and belongs to one thread; once an hour is enough. `sign` signs a repair."""

    def __init__(
        self,
        journal: Path,
        region: str,
        segment_s: float,
        sign: Callable[[], Signer],
        now_us: Callable[[], int],
        disk: Disk | None = None,
    ) -> None:
        self._journal = journal
        self._region = region
        self._rest_us = int(max(REST_S, segment_s) * US_PER_S)
        self._sign = sign
        self._now_us = now_us
        self._disk = disk or Disk()
        self._told: dict[str, str] = {}
        self.begun = 0  # segments, for metrics

    def turn(self) -> None:
        """Begin a segment in every chain that rests. What one of them does not allow is logged, and tried again."""
        for chain in layout.chains(self._journal):
            if chain == layout.CONTROL:
                continue
            try:
                if self._rests(chain):
                    self._go_on(chain)
            except NoFreeChain:
                continue
            except (OSError, ForeignChain, SigningError) as error:
                self._say(chain, str(error))
            else:
                self._told.pop(chain, None)

    def _say(self, chain: str, problem: str) -> None:
        if self._told.get(chain) != problem:
            _log.warning("chain %s, which nobody writes, cannot be brought forward: %s", chain, problem)
        self._told[chain] = problem

    def _rests(self, chain: str) -> bool:
        """Whether its last record is old."""
        number = max(with_lines(self._journal, chain), default=0)
        if not number:
            return False
        return inventory.last_us(layout.segment_path(self._journal, chain, number)) < self._now_us() - self._rest_us

    def _go_on(self, name: str) -> None:
        """Begin its next segment, if nobody has it. Raises NoFreeChain, OSError, ForeignChain, SigningError."""
        disk, journal = self._disk, self._journal
        _, lock_fd = lock_chain(disk, journal, [name])
        try:
            origin = Origin(layout.node_id(journal), self._region, name)
            chain = open_chain(disk, journal, origin, lock_fd, signed_end(journal, name), self._sign)
        except BaseException:
            disk.close(lock_fd)
            raise
        try:
            self._begin(chain)
        except NotWritten as failed:
            raise failed.error from None
        finally:
            chain.close()
        self.begun += 1

    def _begin(self, chain: Chain) -> None:
        """Write the first line of the next segment, in a file that was made ahead where there is one."""
        if chain.file.size:
            following, old = self._following(chain), chain.file
            chain.roll(following, OPENED_BY)
            self._disk.close(old.fd)
        chain.opened_by = OPENED_BY
        chain.write([])
        self._disk.sync(chain.file.fd)

    def _following(self, chain: Chain) -> SegmentFile:
        number = chain.file.number + 1
        path = layout.segment_path(self._journal, chain.origin.chain, number)
        fd = self._disk.create(path)
        try:
            self._disk.sync_dir(path.parent)
        except BaseException:
            self._disk.close(fd)
            raise
        return SegmentFile(fd, number)
