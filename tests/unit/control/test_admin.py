"""The admin API over real HTTP: who gets in, what is shown, and that errors are JSON without insides."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from aiohttp import ClientResponse, ClientSession, web
from aiohttp.test_utils import TestServer

from gateway import __version__
from gateway.config.limits import Limits
from gateway.control.admin import Admin
from gateway.control.keeping import Keeping
from gateway.control.publisher import Publisher
from gateway.control.readiness import Readiness
from gateway.limiter.engine import Amount, Outcome
from gateway.limiter.namekey import settle_on
from gateway.limiter.shared import open_table
from gateway.limiter.spec import rate
from gateway.limiter.table import TableEngine
from gateway.record import Attempt, Kind, Record
from gateway.telemetry.directory import METRICS
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.recorder import Names, Recorder
from tests.fakes.control_context import CONFIG, TOKEN, FakeContext, fake_context
from tests.fakes.patience import PATIENCE_S

WITH_TOKEN = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def context(tmp_path: Path) -> Iterator[FakeContext]:
    made = fake_context(tmp_path)
    yield made
    made.close()


class LimitedKeeping(Keeping):
    """Whose engine of limits is the test's."""

    engine: TableEngine | None = None

    @property
    def limits_engine(self) -> TableEngine | None:
        return self.engine


def admin_of(context: FakeContext, engine: TableEngine | None = None) -> Admin:
    keeping = LimitedKeeping(lambda: publisher.config)
    keeping.engine = engine
    publisher = Publisher(context, keeping.reloaded)
    publisher.open()
    admin = Admin(context, publisher, Readiness(context.state), keeping)
    admin.gate._delay_s = 0.001
    return admin


def over_http(app: web.Application, talk: Callable[[ClientSession], Awaitable[None]]) -> None:
    async def main() -> None:
        async with TestServer(app) as server, ClientSession(server.make_url("/")) as session:
            await talk(session)

    asyncio.run(main())


def ask(
    context: FakeContext, path: str, method: str = "GET", headers: dict[str, str] = WITH_TOKEN
) -> tuple[ClientResponse, Any]:
    """One request to a fresh admin API: the response, and its JSON or text."""
    answers: list[tuple[ClientResponse, Any]] = []

    async def talk(session: ClientSession) -> None:
        async with session.request(method, path, headers=headers) as response:
            is_json = response.content_type == "application/json"
            answers.append((response, await (response.json() if is_json else response.text())))

    over_http(admin_of(context).application(), talk)
    return answers[0]


def paths() -> list[tuple[str, str]]:
    endpoints = Admin.endpoints(Admin.__new__(Admin))
    return [(endpoint.method, endpoint.path.replace("{id:.+}", "ann").replace("{id}", "ann")) for endpoint in endpoints]


# --- who gets in ---


@pytest.mark.parametrize(("method", "path"), paths())
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}])
def test_everything_but_health_wants_the_token(
    context: FakeContext, method: str, path: str, headers: dict[str, str]
) -> None:
    response, content = ask(context, path, method, headers)
    if path in {"/healthz", "/readyz"}:
        assert response.status == 200
        return
    assert response.status == 401
    assert content["error"]["code"] == "unauthorized"
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert context.state.generation == 1
    assert not (context.settings.state_dir / "revocations").exists()


def test_what_does_not_exist_is_not_told_to_strangers(context: FakeContext) -> None:
    assert ask(context, "/v1/nothing", headers={})[0].status == 401
    response, content = ask(context, "/v1/nothing")
    assert (response.status, content["error"]["code"]) == (404, "not_found")


def test_without_an_admin_section_nobody_gets_in(tmp_path: Path) -> None:
    context = fake_context(tmp_path, CONFIG.replace(CONFIG.splitlines()[0] + "\n", ""))
    assert ask(context, "/")[0].status == 401
    assert ask(context, "/healthz", headers={})[0].status == 200
    context.close()


def test_many_wrong_tokens_do_not_slow_the_right_one(context: FakeContext) -> None:
    admin = admin_of(context)
    admin.gate._delay_s = 30

    async def talk(session: ClientSession) -> None:
        guesses = [asyncio.ensure_future(session.get("/", headers={"Authorization": "Bearer no"})) for _ in range(20)]
        done, waiting = await asyncio.wait(guesses, timeout=0.05)
        assert waiting
        async with asyncio.timeout(PATIENCE_S), session.get("/", headers=WITH_TOKEN) as response:
            assert response.status == 200
        for guess in waiting:
            guess.cancel()
        await asyncio.gather(*guesses, return_exceptions=True)
        for guess in done:
            guess.result().release()

    over_http(admin.application(), talk)
    assert admin.gate.refused == 20


# --- health ---


def test_ready_and_not_ready(context: FakeContext) -> None:
    response, content = ask(context, "/readyz", headers={})
    assert (response.status, content) == (200, {"ready": True, "generation": 1, "reasons": []})
    context.state.draining = 1
    response, content = ask(context, "/readyz", headers={})
    assert (response.status, content["reasons"]) == (503, ["the node is draining"])


# --- what is shown ---


def test_the_index_lists_every_endpoint(context: FakeContext) -> None:
    _, content = ask(context, "/")
    assert content["gateway"] == __version__
    shown = [(endpoint["method"], endpoint["path"].replace("{id}", "ann")) for endpoint in content["endpoints"]]
    assert shown == paths()


def test_metrics_in_both_formats(context: FakeContext) -> None:
    Metrics(context.segment.slot(METRICS, 0))
    response, page = ask(context, "/metrics")
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "\ngateway_up 1\n" in page
    assert "\ngateway_snapshot_generation 1\n" in page
    assert f'\ngateway_build_info{{version="{__version__}",' in page
    assert '\ngateway_workers{state="ready"} 2\n' in page
    assert "\ngateway_worker_starts_total 2\n" in page
    response, page = ask(context, "/metrics", headers=WITH_TOKEN | {"Accept": "application/openmetrics-text"})
    assert response.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert page.endswith("# EOF\n")


def test_gauges_of_a_dead_worker_are_not_shown(context: FakeContext) -> None:
    for slot in (0, 1):
        Recorder(Metrics(context.segment.slot(METRICS, slot)), slot, Names())._open_streams.set(5)
    context.state.slot(1).end()
    assert "\ngateway_open_streams 5\n" in ask(context, "/metrics")[1]


def test_targets_with_what_came_of_attempts(context: FakeContext) -> None:
    recorder = Recorder(Metrics(context.segment.slot(METRICS, 1)), 1, Names(targets=frozenset({"big/large-1"})))
    recorder.exchange(Record(Kind.OUTCOME, "x", 0, attempts=(Attempt("big/large-1", "ok"),)), "default", "large")
    _, content = ask(context, "/v1/targets")
    assert content["models"][0]["targets"][0]["attempts"] == {"ok": 1}
    assert "provider-secret" not in str(content)


def test_keys_paged_and_without_secrets(context: FakeContext) -> None:
    _, first = ask(context, "/v1/keys?limit=1")
    _, second = ask(context, f"/v1/keys?limit=1&after={first['next']}")
    assert sorted(key["id"] for key in (*first["keys"], *second["keys"])) == ["ann", "team/bob"]
    assert second["next"] is None
    assert "secret" not in str([first, second])


@pytest.mark.parametrize("query", ["limit=x", "after=-1", "after=1e3", "limit=" + "9" * 40, "limit=²"])
def test_numbers_that_are_none(context: FakeContext, query: str) -> None:
    response, content = ask(context, f"/v1/keys?{query}")
    assert response.status == 400
    assert "is not a whole number" in content["error"]["message"]


def test_routes_and_status(context: FakeContext) -> None:
    assert [route["name"] for route in ask(context, "/v1/routes")[1]["routes"]] == ["agents", "default"]
    _, status = ask(context, "/v1/status")
    assert (status["version"], status["generation"], status["ready"]) == (__version__, 1, True)
    assert [worker["state"] for worker in status["workers"]] == ["ready", "ready"]
    assert status["boot_id"] == "abc"


# --- what is done ---


def test_revoking_a_key(context: FakeContext) -> None:
    response, content = ask(context, "/v1/keys/team%2Fbob/revoke", "POST")
    assert (response.status, content) == (200, {"id": "team/bob", "revoked": True})
    _, page = ask(context, "/v1/keys")
    assert {key["id"]: key["revoked"] for key in page["keys"]} == {"ann": False, "team/bob": True}
    response, content = ask(context, "/v1/keys/nobody/revoke", "POST")
    assert (response.status, content["error"]["code"]) == (404, "key_not_found")


def test_a_reload_that_works_and_one_that_does_not(context: FakeContext) -> None:
    response, content = ask(context, "/v1/reload", "POST")
    assert (response.status, content) == (200, {"reloaded": True, "generation": 2, "restart_needed": []})
    context.write(CONFIG + "nonsense: 1\n")
    response, content = ask(context, "/v1/reload", "POST")
    assert (response.status, content["error"]["code"], content["generation"]) == (422, "config_refused", 2)
    assert "nonsense" in content["problems"][0]
    assert context.state.generation == 2


def test_other_methods_are_refused_by_name(context: FakeContext) -> None:
    response, content = ask(context, "/v1/reload", "GET")
    assert (response.status, response.headers["Allow"]) == (405, "POST")
    assert content["error"]["code"] == "method_not_allowed"


# --- what goes wrong ---


@pytest.mark.parametrize(
    ("error", "message", "logged"),
    [
        (OSError(28, "No space", "/x"), "the state directory cannot be written: No space", "[Errno 28] No space: '/x'"),
        (OSError("not now"), "the state directory cannot be written: not now", "not now"),
    ],
)
def test_a_full_disk_is_an_answer_and_a_line(
    context: FakeContext, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    error: OSError, message: str, logged: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(Publisher, "revoke", mock.AsyncMock(side_effect=error))
    response, content = ask(context, "/v1/keys/ann/revoke", "POST")
    assert (response.status, content["error"]) == (503, {"code": "storage_failed", "message": message})
    (line,) = caplog.records
    assert line.getMessage() == f"admin request POST /v1/keys/ann/revoke failed: {logged}"
    assert line.exc_info is None


def test_a_defect_shows_no_insides(
    context: FakeContext, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Publisher, "revoke", mock.AsyncMock(side_effect=ZeroDivisionError("insides")))
    response, content = ask(context, "/v1/keys/ann/revoke", "POST")
    assert (response.status, content["error"]["code"]) == (500, "internal_error")
    assert "insides" not in str(content)
    assert "Traceback" not in str(content)
    assert caplog.records[0].exc_info is not None


# --- why a key is limited ---

LIMITS = """\
limits: {rules: [{name: hourly, per: [org], tokens: 100, every: hour}]}
models: {large: {targets: [{provider: big, model: large-1}], price: {input: 1, output: 2}}}
"""


def test_why_a_key_is_limited_comes_from_the_table_of_the_node(tmp_path: Path) -> None:
    text = CONFIG.replace("models:\n  large: {targets: [{provider: big, model: large-1}]}\n", LIMITS).replace(
        '  "open/*": {targets: [{provider: big, model: "*", weight: 2}], fallbacks: [large]}\n', ""
    )
    context = fake_context(tmp_path, text)
    settle_on(Limits(), context.settings.state_dir)
    engine = TableEngine(open_table(context.segment, Limits()))
    take = Amount("hourly|org=acme", rate(100_000, 100_000, 3_600_000), 60_000)
    assert engine.table.reserve("h", [take], owner=0, lease_ms=60_000).outcome is Outcome.ADMITTED
    answers: list[Any] = []

    async def talk(session: ClientSession) -> None:
        for query in ("key=ann&model=large&tokens=40", "key=ann&model=large", "key=anne&model=large"):
            async with session.get(f"/v1/limits/explain?{query}", headers=WITH_TOKEN) as response:
                answers.append((response.status, await response.json()))

    admin = admin_of(context, engine)
    over_http(admin.application(), talk)
    (fits_status, fits), (_, usual), (unknown_status, unknown) = answers
    assert (fits_status, fits["admitted"], fits["counted"]) == (200, True, "here")
    (hourly,) = fits["limits"]
    assert (hourly["reserved"], hourly["asked"]) == (60, 40)
    assert 40 <= hourly["level"] < 45  # what refills while the test runs: one in 36 s
    assert fits["targets"][0]["price"]["source"] == "config"
    assert not usual["admitted"]
    assert usual["limits"][0]["asked"] == 100
    assert (unknown_status, unknown["error"]["code"]) == (404, "key_not_found")
    context.close()


def test_the_docs_list_every_endpoint() -> None:
    page = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    rows = re.findall(r"^\| (GET|POST) \| `(/[^`]*)` \| (.*) \|$", page, re.MULTILINE)
    endpoints = Admin.endpoints(Admin.__new__(Admin))
    assert rows == [(endpoint.method, endpoint.path.replace(":.+", ""), endpoint.what) for endpoint in endpoints]
