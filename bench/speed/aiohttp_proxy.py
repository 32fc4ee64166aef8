"""The plainest proxy that aiohttp makes possible: a handler and a ClientSession. It shows what the libraries cost.

Started as `python -m bench.speed.aiohttp_proxy PORT UPSTREAM_PORT`; one process on uvloop.
"""

import sys

import aiohttp
import uvloop
from aiohttp import web

UPSTREAM: web.AppKey[str] = web.AppKey("upstream", str)
SESSION: web.AppKey[aiohttp.ClientSession] = web.AppKey("session", aiohttp.ClientSession)


async def forward(request: web.Request) -> web.StreamResponse:
    """One request through the session; streams pass chunk by chunk as they come."""
    app = request.app
    headers = {"content-type": request.headers.get("content-type", "application/json")}
    body = await request.read()
    url = app[UPSTREAM] + request.path_qs
    async with app[SESSION].request(request.method, url, data=body, headers=headers) as upstream:
        if upstream.content_type != "text/event-stream":
            return web.Response(
                status=upstream.status, body=await upstream.read(), headers={"content-type": "application/json"}
            )
        response = web.StreamResponse(status=upstream.status, headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        async for chunk in upstream.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
        return response


async def application(upstream_port: int) -> web.Application:
    """The application, with a session that may open as many connections as it likes."""
    app = web.Application(client_max_size=64 << 20)
    app[UPSTREAM] = f"http://127.0.0.1:{upstream_port}"
    app[SESSION] = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False
    )
    app.router.add_route("*", "/{path:.*}", forward)

    async def close_session(app: web.Application) -> None:
        await app[SESSION].close()

    app.on_cleanup.append(close_session)
    return app


def main() -> None:
    """Serve until SIGTERM."""
    port, upstream_port = (int(argument) for argument in sys.argv[1:])
    web.run_app(
        application(upstream_port),
        host="127.0.0.1",
        port=port,
        loop=uvloop.new_event_loop(),
        access_log=None,
        backlog=4096,
        print=None,
    )


if __name__ == "__main__":
    main()
