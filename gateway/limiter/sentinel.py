"""Where the primary is, by the word of its sentinels.

Models a question put to all sentinels at once. Each answers with the place and with the epoch of the config it has that
from; the highest epoch among a majority of answers wins, so a sentinel that was cut off, and still believes in the
primary of before, is not followed. Should no majority answer in time, the highest of what did is taken: a store that
cannot be written shows so (READONLY, NOREPLICAS), and is left.

The account is shown to a sentinel only if that asks for one. Source: "Guidelines for Redis clients with support for
Redis Sentinel"; the messages `SENTINEL GET-MASTER-ADDR-BY-NAME` and `SENTINEL MASTER`.

A primary that is replaced while it lives (a failover on command, a network that is cut in two) goes on answering for
some seconds, and what it is told then is lost. So one sentinel after the other is asked now and then whether it is
still the one; who says no has to be confirmed by the majority.

Left out: when to ask (`store.py`), subscribing to their events, and the rests between questions (`breaker.py`).
"""

import asyncio
import ssl
from typing import Any, Final, NamedTuple

from gateway.config.storeurl import Place, dialled
from gateway.limiter.address import StoreAddress
from gateway.limiter.engine import Reason, Unavailable
from gateway.limiter.resp import ReplyError, command
from gateway.limiter.wire import Call, Wire, fail

ANSWER_S: Final = 0.5  # for all of them, connections included: a host that is gone answers nothing at all
_FAILURES: Final = (OSError, TimeoutError, Unavailable)


class Told(NamedTuple):
    """What one sentinel says; compares by its epoch."""

    epoch: int
    place: Place


class Sentinels:
    """The sentinels of an address with a service."""

    def __init__(self, address: StoreAddress, tls: ssl.SSLContext | None) -> None:
        self._address = address
        self._tls = tls
        self._turn = 0

    async def primary(self) -> StoreAddress:
        """Where it is now. Raises ConnectionError, which has what each sentinel said."""
        places = self._address.places
        asked = [asyncio.ensure_future(self._ask(place)) for place in places]
        told: list[Told] = []
        refused: list[str] = []
        try:
            async with asyncio.timeout(ANSWER_S):
                for answer in asyncio.as_completed(asked):
                    try:
                        told.append(await answer)
                    except _FAILURES as error:
                        refused.append(str(error))
                    if 2 * len(told) > len(places):
                        break
        except TimeoutError:
            refused.append(f"no answer within {ANSWER_S:g} s")
        finally:
            for one in asked:
                one.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        if not told:
            raise ConnectionError(f"no sentinel says where {self._address.service} is: {'; '.join(refused)}")
        return self._address.at(max(told).place)

    async def name_another(self, than: StoreAddress) -> bool:
        """Whether the primary is another one by now. Asks one sentinel, and all only if that says so."""
        places = self._address.places
        self._turn += 1
        try:
            async with asyncio.timeout(ANSWER_S):
                told = await self._ask(places[self._turn % len(places)])
            return self._address.at(told.place) != than and await self.primary() != than
        except _FAILURES:
            return False

    async def _ask(self, place: Place) -> Told:
        """Raises OSError or Unavailable, with the sentinel's place in its words."""
        try:
            _, wire = await asyncio.get_running_loop().create_connection(
                lambda: Wire(self, deadline_s=ANSWER_S),
                place.host,
                place.port,
                ssl=self._tls,
                server_hostname=place.host if self._tls else None,
            )
            try:
                return await self._answer(wire)
            finally:
                wire.close()
                await wire.gone.wait()
        except (OSError, Unavailable) as error:
            raise ConnectionError(f"{place}: {error}") from error

    async def _answer(self, wire: Wire) -> Told:
        try:
            return await self._question(wire)
        except Unavailable as error:
            if "NOAUTH" not in str(error) or not self._address.password:
                raise
        user = (self._address.user.encode(),) if self._address.user else ()
        await _send(wire, b"AUTH", *user, self._address.password.encode())
        return await self._question(wire)

    async def _question(self, wire: Wire) -> Told:
        name = self._address.service.encode()
        where = _send(wire, b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name)
        more = _send(wire, b"SENTINEL", b"MASTER", name)
        place = await where
        if place is None:
            raise Unavailable(Reason.REFUSED, f"it monitors nothing named {self._address.service}")
        try:
            host, port = place
            fields = await more
            epoch = int(dict(zip(fields[::2], fields[1::2], strict=True))[b"config-epoch"])
            return Told(epoch, dialled(host.decode(), int(port)))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise Unavailable(Reason.REFUSED, "it does not answer as a sentinel does") from None

    # --- what the wire tells ----------------------------------------------------------------------------------------

    def on_answers(self, calls: int) -> None:
        """Nothing is counted here."""

    def on_late(self, calls: int) -> None:
        """Whoever asked has been told."""

    def on_refused(self, wire: Wire, call: Call, error: ReplyError) -> None:  # noqa: ARG002
        """Tell whoever asked."""
        fail(call[0], Unavailable(Reason.REFUSED, str(error)))

    def on_lost(self, wire: Wire, why: str) -> None:
        """Whoever asked has been told."""


def _send(wire: Wire, *words: bytes) -> asyncio.Future[Any]:
    waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    if wire.open:
        wire.send((waiter, _as_it_is, command(*words), False))
    else:
        fail(waiter, Unavailable(Reason.LOST))
    return waiter


def _as_it_is(reply: Any) -> Any:  # noqa: ANN401  # what a sentinel answers
    return reply
