"""`GET /v1/usage`: who used what, and what it cost, from the usage table.

The words of a question are in `usage_question.py`. JSON, or CSV where `format=csv` or `Accept: text/csv` asks for it;
its next page is named in a `Link` header. The database is asked in a thread, by a few questions at a time, each
bounded in time, so that no question keeps control from its work.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
from aiohttp import web

from gateway.control.database.handle import Database
from gateway.control.database.trouble import BadValue, DatabaseTrouble, TooMuchAsked
from gateway.control.usage_page import ask, lines
from gateway.control.usage_question import BadQuestion, parse

AT_ONCE: Final = 2
_encode: Final = msgspec.json.Encoder().encode


class UsageApi:
    """The handler. `unread` says how many signed records the usage reader has not come to yet."""

    def __init__(self, database: Database, unread: Callable[[], int], now_s: Callable[[], float] = time.time) -> None:
        self._database = database
        self._unread = unread
        self._now_s = now_s
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def get(self, request: web.Request) -> web.Response:
        """Answer one question."""
        try:
            question = parse(request.query.items(), int(self._now_s()))
            async with self._turns:
                told = await asyncio.to_thread(ask, self._database, question)
        except BadQuestion as error:
            return _error(400, "invalid_query", str(error))
        except BadValue as error:
            return _error(400, "invalid_query", f"the database cannot compare with that: {error}")
        except TooMuchAsked as error:
            return _error(400, "too_much_asked", str(error))
        except DatabaseTrouble as error:
            return _error(503, "database_unavailable", str(error))
        told["unread_records"] = self._unread()
        if (question.format or _accepted(request)) == "csv":
            return _csv(request, told)
        return web.Response(body=_encode(told) + b"\n", content_type="application/json")


def _accepted(request: web.Request) -> str:
    return "csv" if "text/csv" in request.headers.get("Accept", "").lower() else "json"


def _csv(request: web.Request, told: dict[str, Any]) -> web.Response:
    headers = {"Content-Disposition": 'attachment; filename="usage.csv"'}
    if told["next"] is not None:
        headers["Link"] = f'<{request.rel_url.update_query(after=told["next"])}>; rel="next"'
    return web.Response(text=lines(told), content_type="text/csv", headers=headers)


def _error(status: int, code: str, message: str) -> web.Response:
    told = {"error": {"code": code, "message": message}}
    return web.Response(body=_encode(told) + b"\n", status=status, content_type="application/json")
