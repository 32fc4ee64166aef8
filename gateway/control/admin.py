"""The admin API: a few JSON endpoints on a port of its own.

`/healthz` and `/readyz` answer anyone, because balancers ask; everything else wants `Authorization: Bearer` with the
admin token. Errors are `{"error": {"code", "message"}}` with a fitting status and never a stack trace; the details
of a defect are in the log.

`Admin.endpoints` is the list, in the order the index page shows it. Left out: the console, and making keys.
"""

import logging
import platform
import time
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import msgspec
from aiohttp import web

from gateway import __version__
from gateway.config.schema import Config
from gateway.config.secrets import Secret
from gateway.control import views
from gateway.control.context import Context
from gateway.control.counts import readings
from gateway.control.gate import TokenGate
from gateway.control.keeping import Keeping
from gateway.control.limits_api import LimitsApi, Sources
from gateway.control.publisher import ADMIN, Publisher
from gateway.control.readiness import Readiness, workers_wanted
from gateway.limiter.learned import LEARNED, Learned
from gateway.limiter.namekey import name_key
from gateway.nodestate import SlotPhase
from gateway.telemetry import families
from gateway.telemetry.scrape import (
    OPENMETRICS_TYPE,
    PROMETHEUS_TYPE,
    Reading,
    counted,
    scrape,
    wants_openmetrics,
)
from gateway.units import NS_PER_S

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Endpoint(NamedTuple):
    """One thing the admin API answers."""

    method: str
    path: str
    handler: Handler
    what: str


MAX_BODY_BYTES: Final = 64 * 1024
_MAX_AFTER: Final = 10**9
_MAX_DIGITS: Final = 12
_OPEN_TO_ALL: Final = frozenset({"/healthz", "/readyz"})
_JSON: Final = "application/json"
_REALM: Final = {"WWW-Authenticate": 'Bearer realm="gateway admin"'}
_log: Final = logging.getLogger("gateway.control")
_encode: Final = msgspec.json.Encoder().encode


class Admin:
    """The handlers, and the application they make up."""

    def __init__(self, context: Context, publisher: Publisher, readiness: Readiness, keeping: Keeping) -> None:
        self._context = context
        self._publisher = publisher
        self._readiness = readiness
        self._keeping = keeping
        self._limits = LimitsApi(
            Sources(
                config=lambda: publisher.config,
                keys=lambda: publisher.keys,
                engine=lambda: keeping.limits_engine,
                prices=publisher.price_list,
                learned=lambda: Learned(context.segment.shared(LEARNED)),
                name_key=lambda: name_key(context.settings.state_dir),
            )
        )
        self.gate = TokenGate(self._token, time.monotonic)

    def application(self) -> web.Application:
        """The application to serve on the admin socket."""
        app = web.Application(middlewares=[_errors_as_json, self._guard], client_max_size=MAX_BODY_BYTES)
        for endpoint in self.endpoints():
            app.router.add_route(endpoint.method, endpoint.path, endpoint.handler)
        return app

    def endpoints(self) -> tuple["Endpoint", ...]:
        """Everything there is to ask for."""
        return (
            Endpoint("GET", "/healthz", self.healthz, "200 while control is alive; needs no token"),
            Endpoint("GET", "/readyz", self.readyz, "200 while the node should get traffic; needs no token"),
            Endpoint("GET", "/", self.index, "this list"),
            Endpoint("GET", "/metrics", self.metrics, "Prometheus or OpenMetrics text"),
            Endpoint("GET", "/v1/status", self.status, "the node, its snapshot and its workers"),
            Endpoint("GET", "/v1/targets", self.targets, "providers, and the targets of each model"),
            Endpoint("GET", "/v1/routes", self.routes, "routes in the order that decides"),
            Endpoint("GET", "/v1/keys", self.keys, "keys without their secrets; ?after=0&limit=100"),
            Endpoint("POST", "/v1/keys/{id:.+}/revoke", self.revoke_key, "revoke a key, for good"),
            Endpoint("POST", "/v1/reload", self.reload, "read the config again, as on SIGHUP"),
            Endpoint("GET", "/v1/usage", self._usage, "who used what: ?by=team,model&from=&to=&format=csv"),
            Endpoint("GET", "/v1/limits/explain", self._explain, "why limited, and until when: ?key=&model=&tokens="),
            Endpoint("GET", "/v1/journal", self._of_journal("status"), "the journal: chains, readers, retention"),
            Endpoint("GET", "/v1/journal/holds", self._of_journal("holds"), "legal holds in force"),
            Endpoint("POST", "/v1/journal/holds", self._of_journal("add_hold"), "hold a time from being dropped"),
            Endpoint("POST", "/v1/journal/holds/{id}/release", self._of_journal("release_hold"), "end a hold"),
            Endpoint("POST", "/v1/journal/erase", self._of_journal("erase"), "forget a user, or all of an org"),
        )

    # --- open to all ------------------------------------------------------------------------------------------------

    async def healthz(self, _request: web.Request) -> web.Response:
        """Control is alive."""
        return _answer({"status": "ok"})

    async def readyz(self, _request: web.Request) -> web.Response:
        """200 while the node should get traffic, else 503 with the reasons."""
        reasons = self._readiness.reasons(time.monotonic_ns())
        generation = self._context.state.generation
        return _answer({"ready": not reasons, "generation": generation, "reasons": reasons}, 503 if reasons else 200)

    # --- with the token ---------------------------------------------------------------------------------------------

    async def index(self, _request: web.Request) -> web.Response:
        """What there is."""
        shown = [
            {"method": endpoint.method, "path": endpoint.path.replace(":.+", ""), "what": endpoint.what}
            for endpoint in self.endpoints()
        ]
        return _answer({"gateway": __version__, "endpoints": shown})

    async def metrics(self, request: web.Request) -> web.Response:
        """The metrics page."""
        context = self._context
        openmetrics = wants_openmetrics(request.headers.get("Accept", ""))
        living = {SlotPhase.STARTING, SlotPhase.READY, SlotPhase.DRAINING}
        live = {slot for slot in range(context.segment.slots) if context.state.slot(slot).phase in living}
        page = scrape(context.segment, live=live, readings=self._readings(), openmetrics=openmetrics)
        kind = OPENMETRICS_TYPE if openmetrics else PROMETHEUS_TYPE
        return web.Response(body=page.encode(), headers={"Content-Type": kind})

    async def targets(self, _request: web.Request) -> web.Response:
        """Providers and the targets of each model."""
        config = self._config()
        return _answer(views.targets(config, counted(self._context.segment, families.ATTEMPTS)))

    async def keys(self, request: web.Request) -> web.Response:
        """Keys, a page at a time; never a secret."""
        after = _whole_number(request, "after", 0, _MAX_AFTER)
        limit = _whole_number(request, "limit", views.DEFAULT_PAGE, views.MAX_PAGE)
        return _answer(await self._publisher.page(after, max(1, limit)))

    async def revoke_key(self, request: web.Request) -> web.Response:
        """Revoke a key for good; acts in every worker within a tick."""
        key_id = request.match_info["id"]
        with self._keeping.revokers.revoking(key_id):
            if not await self._publisher.revoke(key_id):
                return _error(404, "key_not_found", f"there is no key with the id {key_id!r}")
            self._keeping.revokers.revoked(key_id, ADMIN)
        _log.info("key revoked", extra={"fields": {"key_id": key_id}})
        return _answer({"id": key_id, "revoked": True})

    async def routes(self, _request: web.Request) -> web.Response:
        """Routes, in the order that decides."""
        return _answer({"routes": views.routes(self._config())})

    async def reload(self, _request: web.Request) -> web.Response:
        """Read the config again, as on SIGHUP: the new generation, or every problem and the old one."""
        result = await self._publisher.reload(ADMIN)
        if not result.problems:
            return _answer({"reloaded": True, "generation": result.generation, "restart_needed": result.restart})
        error = {"code": "config_refused", "message": "the config was not adopted: the old one serves"}
        return _answer({"error": error, "generation": result.generation, "problems": result.problems}, 422)

    async def status(self, _request: web.Request) -> web.Response:
        """The node: what runs, since when, and its workers."""
        context, state, now_ns = self._context, self._context.state, time.monotonic_ns()
        return _answer(
            {
                "version": __version__,
                "python": platform.python_version(),
                "boot_id": f"{state.boot_id:x}",
                "uptime_s": (now_ns - context.boot_ns) // NS_PER_S,
                "upgrades": state.upgrades,
                "generation": state.generation,
                "draining": bool(state.draining),
                "ready": not self._readiness.reasons(now_ns),
                "workers_wanted": workers_wanted(state),
                "workers": views.workers(state, now_ns),
                "last_reload_problems": self._publisher.last_reload.problems,
            }
        )

    async def _usage(self, request: web.Request) -> web.StreamResponse:
        """Who used what, from the usage table."""
        parts = self._keeping.parts
        return _no_journal() if parts is None else await parts.usage_api.get(request)

    async def _explain(self, request: web.Request) -> web.StreamResponse:
        """How the limits of a request stand."""
        return await self._limits.explain(request)

    def _of_journal(self, name: str) -> Handler:
        """A handler of the journal's part of this API (`journal_api.py`), for when the journal is open."""

        async def handler(request: web.Request) -> web.StreamResponse:
            parts = self._keeping.parts
            if parts is None:
                return _no_journal()
            answer: web.StreamResponse = await getattr(parts.journal_api, name)(request)
            return answer

        return handler

    # --- parts ------------------------------------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in _OPEN_TO_ALL or self.gate.admits(request.headers.get("Authorization", "")):
            return await handler(request)
        await self.gate.refuse()
        message = "send the admin token: Authorization: Bearer <admin.token>"
        return _error(401, "unauthorized", message, headers=_REALM)

    def _token(self) -> Secret | None:
        config = self._publisher.config
        return config.admin.token if config is not None and config.admin is not None else None

    def _config(self) -> Config:
        config = self._publisher.config
        if config is None:  # then there is no token either, and nobody gets here
            raise web.HTTPServiceUnavailable
        return config

    def _readings(self) -> list[Reading]:
        state = self._context.state
        return [
            Reading(families.UP, int(not self._readiness.reasons(time.monotonic_ns()))),
            Reading(families.BUILD_INFO, 1, (__version__, platform.python_version())),
            Reading(families.SNAPSHOT_GENERATION, state.generation),
            *(Reading(families.WORKERS, count, (name,)) for name, count in views.worker_counts(state)),
            *readings(self._keeping),
            Reading(families.WORKER_STARTS, sum(state.slot(slot).birth for slot in state.worker_slots)),
        ]


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        return _error(error.status, error.reason.lower().replace(" ", "_"), error.reason, headers=allow)
    except OSError as error:
        _log.error("admin request %s %s failed: %s", request.method, request.path, error)
        return _error(503, "storage_failed", f"the state directory cannot be written: {error.strerror or error}")
    except Exception:  # noqa: BLE001 - a defect in one handler must not show its insides
        _log.exception("admin request %s %s failed", request.method, request.path)
        return _error(500, "internal_error", "a defect of the gateway; its log has the details")


def _answer(content: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=_encode(content) + b"\n", status=status, content_type=_JSON, headers=headers)


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return _answer({"error": {"code": code, "message": message}}, status, headers)


def _whole_number(request: web.Request, name: str, default: int, most: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > _MAX_DIGITS:
        raise web.HTTPBadRequest(reason=f"{name} is not a whole number")
    return min(int(text), most)


def _no_journal() -> web.Response:
    return _error(503, "no_journal", "no journal is kept (journal.enabled), or it cannot be opened yet: see the log")
