"""The command line asks the running node, and the config when there is none."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from aiohttp import web

from gateway.config.load import load
from gateway.config.schema import Config
from gateway.control import client
from gateway.control.admin import Admin
from gateway.control.client import AdminRefused, AdminUnreachable
from gateway.control.keeping import Keeping
from gateway.control.publisher import Publisher
from gateway.control.readiness import Readiness
from tests.fakes.control_context import FakeContext, fake_context

T = TypeVar("T")


@pytest.fixture
def context(tmp_path: Path) -> Iterator[FakeContext]:
    made = fake_context(tmp_path)
    yield made
    made.close()


def config_of(context: FakeContext, *overrides: str) -> Config:
    return load(context.settings.config, [f"admin.port={context.port}", *overrides])


def while_serving(context: FakeContext, app: web.Application, work: Callable[[], T]) -> T:
    async def main() -> T:
        runner = web.AppRunner(app)
        await runner.setup()
        await web.SockSite(runner, context.admin.dup()).start()
        try:
            return await asyncio.to_thread(work)
        finally:
            await runner.cleanup()

    return asyncio.run(main())


def admin_app(context: FakeContext) -> web.Application:
    keeping = Keeping(lambda: publisher.config)
    publisher = Publisher(context, keeping.reloaded)
    publisher.open()
    return Admin(context, publisher, Readiness(context.state), keeping).application()


def test_a_running_node_tells(context: FakeContext) -> None:
    config = config_of(context, "admin.host=0.0.0.0")
    found = while_serving(context, admin_app(context), lambda: client.targets(config))
    assert found.live
    assert [model["model"] for model in found.content["models"]] == ["large", "open/*"]


def test_without_one_the_config_tells(context: FakeContext) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    found = client.targets(load(context.settings.config, [f"admin.port={port}"]))
    assert not found.live
    assert [model["model"] for model in found.content["models"]] == ["large", "open/*"]


def test_a_wrong_token_is_said_and_not_hidden(context: FakeContext) -> None:
    config = config_of(context, "admin.token=another-token-than-theirs")
    with pytest.raises(AdminRefused, match="admin token"):
        while_serving(context, admin_app(context), lambda: client.targets(config))


@pytest.mark.parametrize("body", ["no json", "[]"])
def test_something_else_on_the_port_is_no_admin_api(context: FakeContext, body: str) -> None:
    async def other(_request: web.Request) -> web.Response:
        return web.Response(text=body)

    app = web.Application()
    app.router.add_get("/v1/targets", other)
    config = config_of(context)
    with pytest.raises(AdminUnreachable):
        while_serving(context, app, lambda: client.ask(config, "GET", "/v1/targets"))


def test_no_admin_port_is_unreachable(context: FakeContext) -> None:
    with pytest.raises(AdminUnreachable):
        client.ask(load(context.settings.config), "GET", "/")


def echo_app() -> web.Application:
    async def echo(request: web.Request) -> web.Response:
        content = await request.json() if request.can_read_body else None
        kind = request.headers.get("Content-Type", "")
        return web.json_response({"method": request.method, "body": content, "kind": kind})

    app = web.Application()
    app.router.add_route("*", "/v1/echo", echo)
    return app


@pytest.mark.parametrize(("body", "kind"), [({"org": "é", "user": ""}, "application/json"), (None, "")])
def test_a_body_goes_as_json(context: FakeContext, body: object, kind: str) -> None:
    config = config_of(context)
    told = while_serving(context, echo_app(), lambda: client.ask(config, "POST", "/v1/echo", body))
    assert told == {"method": "POST", "body": body, "kind": kind}


def test_an_answer_that_takes_too_long_is_unreachable(context: FakeContext) -> None:
    async def never(_request: web.Request) -> web.Response:
        await asyncio.sleep(0.5)
        return web.json_response({})

    app = web.Application()
    app.router.add_post("/v1/never", never)
    config = config_of(context)
    with pytest.raises(AdminUnreachable, match="timed out"):
        while_serving(context, app, lambda: client.ask(config, "POST", "/v1/never", {}, 0.05))
