"""Which place to dial next: what the URL names, in turn; what sentinels say; or where a node of a cluster has sent us.

Invariants: a place we were sent to is dialled once in vain at most, then the URL is believed again. Left out: when to
dial (`breaker.py`), and the dialling (`store.py`).
"""

import ssl
from contextlib import suppress
from typing import Final

from gateway.config.storeurl import dialled
from gateway.limiter.address import StoreAddress
from gateway.limiter.sentinel import Sentinels

_MOVED_WORDS: Final = 3  # MOVED <slot> <host>:<port>


class Whereabouts:
    """Of one store, as one worker knows them. `at` is the place dialled last."""

    def __init__(self, address: StoreAddress, tls: ssl.SSLContext | None) -> None:
        self.at: StoreAddress = address
        self._address = address
        self._sentinels = Sentinels(address, tls) if address.service else None
        self._turn = 0
        self._sent_to: StoreAddress | None = None

    @property
    def sent_elsewhere(self) -> bool:
        """Whether a node has named another one that was not dialled yet."""
        return self._sent_to is not None and self._sent_to != self.at

    async def following(self) -> StoreAddress:
        """Where to dial now. Raises ConnectionError when no sentinel knows."""
        self.at = self._address  # what is at fault while sentinels are asked
        if self._sent_to is not None:
            self.at = self._sent_to
        elif self._sentinels is not None:
            self.at = await self._sentinels.primary()
        else:
            places = self._address.places
            self.at = self._address.at(places[self._turn % len(places)])
        return self.at

    async def replaced(self) -> bool:
        """Whether sentinels name another primary than the one dialled last; False when none of them knows."""
        return self._sentinels is not None and await self._sentinels.name_another(self.at)

    def failed(self) -> None:
        """It was dialled in vain, or does not do its work: that node may be gone, or not be the one any more."""
        if self._sent_to is None:
            self._turn += 1
        elif self._sent_to == self.at:
            self._sent_to = None

    def moved(self, error: str) -> None:
        """A node says that another one has our keys; an empty host is its own."""
        words = error.split()
        host, _, port = words[-1].rpartition(":") if len(words) == _MOVED_WORDS else ("", "", "")
        with suppress(ValueError):  # it has said nothing that can be followed
            self._sent_to = self.at.at(dialled(host.strip("[]") or self.at.host, int(port)))
