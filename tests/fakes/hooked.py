"""Somebody who is sent events: over real HTTP, answering as told, and noting what came."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, Self

from aiohttp import web
from aiohttp.test_utils import TestServer


class Came(NamedTuple):
    """One request."""

    headers: Mapping[str, str]
    body: bytes


class Hooked:
    """`answers` are given one after the other, the last one for ever: a status, "cut", "hang", or a URL to go to."""

    def __init__(self, *answers: int | str) -> None:
        self.answers = list(answers) or [204]
        self.came: list[Came] = []
        self.elsewhere = 0
        self.url = ""
        self._something = asyncio.Condition()
        self._server: TestServer | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/hook", self._hook)
        app.router.add_route("*", "/elsewhere", self._elsewhere)
        self._server = TestServer(app)
        await self._server.start_server()
        self.url = str(self._server.make_url("/hook"))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            await self._server.close()

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until that is so, looking after every request and a moment after the last one."""
        async with asyncio.timeout(10):
            while not true():
                async with self._something:
                    if not true():
                        await _either(self._something.wait(), 0.02)

    async def requests(self, number: int) -> list[Came]:
        """Wait for so many."""
        await self.until(lambda: len(self.came) >= number)
        return self.came

    async def _hook(self, request: web.Request) -> web.StreamResponse:
        self.came.append(Came(dict(request.headers), await request.read()))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        async with self._something:
            self._something.notify_all()
        if answer == "hang":
            await asyncio.sleep(5)
        if answer == "cut" and request.transport is not None:
            request.transport.abort()
        if isinstance(answer, str):
            return web.Response(status=307, headers={"location": answer, "set-cookie": "a=b"})
        return web.Response(status=answer, headers={"set-cookie": "a=b"})

    async def _elsewhere(self, _: web.Request) -> web.Response:
        self.elsewhere += 1
        return web.Response()


async def _either(waiting: Awaitable[object], most_s: float) -> None:
    try:
        await asyncio.wait_for(waiting, most_s)
    except TimeoutError:
        return
