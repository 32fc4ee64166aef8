"""From a request to the reply and the behaviour it is to be played with; no socket.

The order of decisions: the sim's own /__sim/ endpoints; the caller's key; the behaviour, from its four sources; a
fixed answer of the script; a status that was asked for; the endpoint. Whatever is refused on the way is refused in
the dialect of the path. The one failure that is never simulated is ours: a crash in here is a bug and answers 500.
"""

from __future__ import annotations

import base64
import time
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import orjson

from bench.sim import anthropic, faults, forms, script, text
from bench.sim.ask import Ask, new_id
from bench.sim.log import Entry, Log
from bench.sim.openai import ROUTES as OPENAI_ROUTES
from bench.sim.openai.common import DIALECT as OPENAI
from bench.sim.wire import Dialect, Refused, Reply, Request, json_reply

ROUTES = OPENAI_ROUTES | {"/v1/messages": anthropic.create, "/v1/messages/count_tokens": anthropic.count_tokens}
REQUESTS_PER_MINUTE = 1_000_000
OK, TOO_MANY = 200, 429
ECHO_BYTES = 64 * 1024


class Answered(NamedTuple):
    """What to play, how, and the log entry that follows it."""

    reply: Reply
    behaviour: faults.Behaviour
    entry: Entry


class _Plan(NamedTuple):
    form: forms.Form
    model: str
    behaviour: faults.Behaviour
    rule: script.Rule | None


@dataclass(slots=True)
class App:
    """One simulated provider: its script, its defaults, its log."""

    start_script: script.Script = field(default_factory=script.Script)
    defaults: faults.Settings = field(default_factory=dict)
    api_key: str | None = None
    log: Log = field(default_factory=Log)
    _script: script.Script = field(init=False)
    _minute: int = 0
    _used: int = 0

    def __post_init__(self) -> None:
        self._script = self.start_script

    def answer(self, request: Request) -> Answered:
        """Decide how to answer. Never raises for anything a caller can send."""
        if request.path.startswith("/__sim/"):
            return Answered(self._control(request), faults.PLAIN, Log().open(request))
        dialect = _dialect(request)
        entry = self.log.open(request)
        request_id = new_id("req_")
        behaviour = faults.PLAIN
        try:
            self._authenticate(request)
            plan = self._plan(request, entry)
            behaviour = plan.behaviour
            reply = self._reply(request, plan, request_id)
        except Refused as refusal:
            reply = _error(dialect, refusal, request_id)
        if not reply.exact:
            self._dress(reply, request, behaviour, dialect, request_id)
        if behaviour.retry_after is not None:
            reply.headers.append(("retry-after", behaviour.retry_after))
        entry.status = reply.status
        return Answered(reply, behaviour, entry)

    def _authenticate(self, request: Request) -> None:
        if self.api_key is None:
            return
        bearer = request.header("authorization").removeprefix("Bearer ").strip()
        if self.api_key not in (bearer, request.header("x-api-key"), request.header("api-key")):
            raise Refused(401, "Incorrect API key provided.", code="invalid_api_key")

    def _plan(self, request: Request, entry: Entry) -> _Plan:
        """The body, and the behaviour from header, model, script and defaults."""
        unreadable: Refused | None = None
        try:
            form = forms.read(request) if request.method != "GET" else forms.Form({}, {})
        except Refused as refusal:
            form, unreadable = forms.Form({}, {}), refusal
        entry.model = text.string(form.fields.get("model"))
        entry.upload_bytes = sum(form.files.values()) if form.files else None
        rule = self._script.match(_facts(request, entry.model, form)) if self._script.rules else None
        try:
            asked = faults.parse(request.header("x-sim")), faults.of_model(entry.model)[1]
        except faults.BadBehaviour as error:
            raise Refused(400, str(error), code="bad_behaviour") from None
        ruled = rule.settings if rule else {}
        behaviour = faults.behaviour(*asked, ruled, self._script.defaults, self.defaults)
        if behaviour is not faults.PLAIN:
            entry.behaviour = _spelled(behaviour)
        if unreadable is not None and not request.path.startswith("/echo") and behaviour.status is None and not rule:
            raise unreadable
        return _Plan(form, entry.model, behaviour, rule)

    def _reply(self, request: Request, plan: _Plan, request_id: str) -> Reply:
        rule, behaviour = plan.rule, plan.behaviour
        if rule is not None and rule.canned is not None:
            return rule.canned.reply()
        if behaviour.status is not None:
            asked = Refused(behaviour.status, behaviour.message, code=behaviour.code)
            return _error(_dialect(request), asked, request_id)
        if request.path == "/echo" or request.path.startswith("/echo/"):
            return json_reply(_echo(request))
        if request.method in ("GET", "HEAD"):
            return _get(request)
        create = ROUTES.get(request.path)
        if create is None:
            raise _unknown_url(request)
        if request.method != "POST":
            raise Refused(405, f"Not allowed to {request.method} on {request.path}.", code="method_not_supported")
        said = rule.text if rule else None
        ask = Ask(request, plan.form.fields, plan.model, behaviour, int(time.time()), said, plan.form.files)
        if not plan.model and request.path != "/v1/moderations":
            raise Refused(400, "you must provide a model parameter", param="model")
        return create(ask)

    def _dress(
        self, reply: Reply, request: Request, behaviour: faults.Behaviour, dialect: Dialect, request_id: str
    ) -> None:
        """Give the reply its dialect's headers, pings and, where asked for, its error inside a 200."""
        remaining = 0 if reply.status == TOO_MANY else self._remaining()
        reply.headers.extend(dialect.headers(request_id, remaining, REQUESTS_PER_MINUTE, int(behaviour.ttft_ms) + 1))
        reply.ping, reply.ping_at = dialect.ping, dialect.ping_at
        if behaviour.error is None or reply.status != OK:
            return
        if reply.sse:
            reply.error_event = dialect.error_event(request.path, behaviour.message, behaviour.code, request_id)
        else:
            reply.body = dialect.error_body(500, behaviour.message, behaviour.code, None, request_id)

    def _remaining(self) -> int:
        minute = int(time.time() // 60)
        if minute != self._minute:
            self._minute, self._used = minute, 0
        self._used += 1
        return max(0, REQUESTS_PER_MINUTE - self._used)

    def _control(self, request: Request) -> Reply:
        """The endpoints tests steer by; faults and authentication do not apply to them."""
        verb = f"{request.method} {request.path}"
        if verb == "GET /__sim/requests":
            return json_reply({"requests": [asdict(entry) for entry in self.log.entries]})
        if verb == "GET /__sim/health":
            return json_reply({"ok": True})
        if verb == "POST /__sim/reset":
            self._restore()
            return json_reply({"ok": True})
        if verb == "POST /__sim/script":
            return self._take_script(request)
        return _error(OPENAI, _unknown_url(request), "")

    def _restore(self) -> None:
        self.log.clear()
        self._script = self.start_script
        for rule in self._script.rules:
            rule.seen = 0

    def _take_script(self, request: Request) -> Reply:
        try:
            taken = script.build(forms.read(request).fields)
        except (script.BadScript, Refused) as error:
            return _error(OPENAI, Refused(400, str(error), code="bad_script"), "")
        self._script = taken
        return json_reply({"ok": True, "rules": len(taken.rules)})


def _dialect(request: Request) -> Dialect:
    if request.path.startswith("/v1/messages") or request.header("anthropic-version"):
        return anthropic.DIALECT
    return OPENAI


def _error(dialect: Dialect, refusal: Refused, request_id: str) -> Reply:
    body = dialect.error_body(refusal.status, refusal.message, refusal.code, refusal.param, request_id)
    return Reply(refusal.status, [("content-type", "application/json")], body)


def _unknown_url(request: Request) -> Refused:
    return Refused(404, f"Invalid URL ({request.method} {request.path})", code="unknown_url")


def _get(request: Request) -> Reply:
    dialect = _dialect(request)
    if request.path == "/v1/models":
        return json_reply(dialect.models())
    if request.path.startswith("/v1/models/"):
        return json_reply(dialect.model(request.path.removeprefix("/v1/models/")))
    raise _unknown_url(request)


def _facts(request: Request, model: str, form: forms.Form) -> dict[str, str]:
    fields = form.fields
    spoken = fields.get("messages") or fields.get("input")
    prompt = text.string(fields.get("prompt")) or text.string(spoken) or text.prompt_of(spoken)
    return {"path": request.path, "method": request.method, "model": model, "prompt": prompt}


def _echo(request: Request) -> dict[str, object]:
    """The request as it arrived, so that a test can compare it with what was sent elsewhere."""
    whole = request.body_len <= ECHO_BYTES
    return {
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "headers": request.headers,
        "body_sha256": request.body_sha256,
        "body_len": request.body_len,
        "body_b64": base64.b64encode(request.body).decode() if whole else None,
    }


def _spelled(behaviour: faults.Behaviour) -> str:
    usual = asdict(faults.PLAIN)
    set_ = {name: value for name, value in asdict(behaviour).items() if value != usual[name]}
    return orjson.dumps(set_).decode() if set_ else ""
