"""Locust's side, with Locust played: what a caller checks, from when its latency counts, and that every profile asks.

The profiles are run against real Locust by `make bench-load`; here it is a user class, a decorator and an event.
"""

import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Self

import pytest

from bench.load.profiles import PROFILES, Profile

TOKEN = b'data: {"choices":[{"delta":{"content":"a"}}]}\n'
STOP = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n'
STREAM = (TOKEN, b"\n", TOKEN, STOP, b"data: [DONE]\n")


class Answer:
    """Locust's answer in a with block."""

    def __init__(self, status: int, content: bytes, lines: tuple[bytes, ...]) -> None:
        self.status_code = status
        self.content = content
        self.request_meta: dict[str, object] = {}
        self.headers: dict[str, str] = {}
        self.failures: list[str] = []
        self.succeeded = False
        self._lines = list(lines)
        self._response = self

    def readline(self, sep: bytes) -> bytes:
        assert sep == b"\n"
        return self._lines.pop(0) if self._lines else b""

    def failure(self, words: str) -> None:
        self.failures.append(words)

    def success(self) -> None:
        self.succeeded = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Client:
    """Answers every request alike, and keeps what was asked."""

    def __init__(self) -> None:
        self.status, self.content, self.lines = 200, b'{"a":1}', STREAM
        self.headers: dict[str, str] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answers: list[Answer] = []

    def post(self, path: str, **given: Any) -> Answer:
        self.asked.append((path, given))
        self.answers.append(Answer(self.status, self.content, self.lines))
        self.answers[-1].headers = self.headers
        return self.answers[-1]


class Event:
    """Locust's events, as far as they are used."""

    def __init__(self) -> None:
        self.listeners: list[Any] = []
        self.fired: list[dict[str, Any]] = []

    def add_listener(self, function: Callable[..., None]) -> Callable[..., None]:
        self.listeners.append(function)
        return function

    def fire(self, **given: Any) -> None:
        self.fired.append(given)


def waited(user: Any) -> None:  # noqa: ANN401 - a class of a module made below
    user.wait_time()
    user.waited += 1


@pytest.fixture
def kit(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    locust, gevent = ModuleType("locust"), ModuleType("gevent")
    locust.__dict__.update(
        FastHttpUser=type("FastHttpUser", (), {"waited": 0, "wait": waited}),
        task=lambda function: function,
        events=SimpleNamespace(quitting=Event()),
    )
    gevent.__dict__.update(sleep=lambda _: None, spawn=lambda function: function())
    for name, module in (("locust", locust), ("gevent", gevent)):
        monkeypatch.setitem(sys.modules, name, module)
    before = set(sys.modules)
    yield importlib.import_module("bench.locust.kit")
    for name in set(sys.modules) - before:
        del sys.modules[name]


def user(kit: ModuleType, kind: type | None = None) -> Any:  # noqa: ANN401 - a class of a module made here
    found = (kind or kit.Caller)()
    found.client = Client()
    found.environment = SimpleNamespace(events=SimpleNamespace(request=Event()))
    found.on_start()
    return found


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_every_profile_asks_and_is_content_with_a_good_answer(profile: Profile, kit: ModuleType) -> None:
    module = importlib.import_module(f"bench.locust.{profile.name}")
    classes = [
        found
        for found in vars(module).values()
        if isinstance(found, type) and issubclass(found, kit.Caller) and not vars(found).get("abstract")
    ]
    assert classes
    for kind in classes:
        caller = user(kit, kind)
        tasks = [name for name, member in vars(kind).items() if callable(member) and name not in {"turns", "__init__"}]
        for name in tasks:
            getattr(caller, name)()
        assert len(caller.client.asked) >= len(tasks) >= 1
        assert not [words for answer in caller.client.answers for words in answer.failures]
        for path, given in caller.client.asked:
            assert path in {kit.CHAT, kit.EMBEDDINGS}
            assert json.loads(given["data"])["model"] == "bench-model"
            assert given["headers"]["authorization"].startswith("Bearer ")


@pytest.mark.parametrize(
    ("status", "content", "said"),
    [
        (429, b"slow down", "status 429: b'slow down'"),
        (0, b"", "status 0: b''"),
        (200, b'{"cut', "not a whole JSON object"),
    ],
)
def test_a_bad_answer_is_told(status: int, content: bytes, said: str, kit: ModuleType) -> None:
    caller = user(kit)
    caller.client.status, caller.client.content = status, content
    assert caller.ask("x", b"{}", due_s=0) is None
    assert caller.client.answers[0].failures[0].startswith(said)


def test_latency_counts_from_when_a_request_was_due(kit: ModuleType) -> None:
    caller = user(kit)
    caller._due_s = time.monotonic() - 5
    caller.begin(lambda due_s: caller.ask("x", b"{}", due_s=due_s))
    caller.begin(lambda due_s: caller.listen("x", b"{}", due_s=due_s))
    caller.ask("x", b"{}", due_s=time.monotonic())
    times = [answer.request_meta["response_time"] for answer in caller.client.answers]
    assert times[0] >= 5000
    assert times[1] >= 5000
    assert times[2] < 5000


def test_a_user_who_has_not_begun_is_not_waited_for(kit: ModuleType) -> None:
    """It is within Locust's own wait, which ends with the run; at a low rate the first gap is longer than a run."""
    assert user(kit).waited == 1


def test_the_schedule_does_not_wait_for_answers(kit: ModuleType) -> None:
    caller = user(kit)
    caller._due_s = time.monotonic() - 1e6
    assert caller.wait_time() == 0
    gaps = []
    for _ in range(2000):
        before = caller._due_s
        caller.wait_time()
        gaps.append(caller._due_s - before)
    assert sum(gaps) / len(gaps) == pytest.approx(1 / caller.orders.rate_per_user, rel=0.15)
    caller.eagerness = 4.0
    before = caller._due_s
    for _ in range(2000):
        caller.wait_time()
    assert (caller._due_s - before) / 2000 == pytest.approx(0.25 / caller.orders.rate_per_user, rel=0.15)


def test_a_good_stream_tells_its_first_token_and_gaps(kit: ModuleType) -> None:
    caller = user(kit)
    caller.listen("s", b"{}", due_s=time.monotonic())
    fired = caller.environment.events.request.fired
    assert [(one["request_type"], one["name"]) for one in fired] == [("TTFT", "s"), ("GAP", "s")]


@pytest.mark.parametrize("lines", [STREAM[:-1], (), STREAM[3:]])
def test_a_bad_stream_is_told_and_its_times_are_not(lines: tuple[bytes, ...], kit: ModuleType) -> None:
    caller = user(kit)
    caller.client.lines = lines
    caller.listen("s", b"{}", due_s=time.monotonic())
    assert caller.client.answers[0].failures
    assert not caller.environment.events.request.fired


def test_a_broken_connection_is_told(kit: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Answer, __: bytes) -> bytes:
        raise ConnectionError("reset")

    monkeypatch.setattr(Answer, "readline", broken)
    caller = user(kit)
    caller.listen("s", b"{}", due_s=time.monotonic())
    assert caller.client.answers[0].failures == ["the stream broke: ConnectionError('reset')"]


def test_the_outcome_is_written_once_by_the_master(
    kit: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = tmp_path / "outcome.json"
    monkeypatch.setattr(kit.Caller, "orders", SimpleNamespace(outcome=str(written)))
    entry = SimpleNamespace(
        method="POST",
        name="chat",
        num_requests=3,
        num_failures=1,
        get_response_time_percentile=lambda q: q * 10,
        max_response_time=11,
        total_rps=1.5,
    )
    error = SimpleNamespace(name="chat", error="status 500", occurrences=1)
    stats = SimpleNamespace(entries={("chat", "POST"): entry}, errors={"x": error})
    worker = type("WorkerRunner", (), {})()
    kit.write_outcome(SimpleNamespace(runner=worker, stats=stats))
    assert not written.exists()
    kit.write_outcome(SimpleNamespace(runner=object(), stats=stats))
    drive = importlib.import_module("bench.load.drive")
    outcome = drive.Outcome.parse(written.read_text())
    assert (outcome.requests, outcome.failures, outcome.problems) == (3, 1, {"chat: status 500": 1})
    assert outcome.entries[0].p99_ms == pytest.approx(9.9)


REFUSED_HEADERS = {"retry-after-ms": "500", "retry-after": "1", "x-ratelimit-remaining-requests": "0"}
REFUSED = b'{"error":{"code":"rate_limit_exceeded","message":"the limit bench-quota and bench-patient are used up"}}'


def refused(kit: ModuleType, kind: str) -> Any:  # noqa: ANN401 - as `user`
    module = importlib.import_module("bench.locust.limits")
    caller = user(kit, getattr(module, kind))
    caller.client.status, caller.client.content, caller.client.headers = 429, REFUSED, REFUSED_HEADERS
    return caller


def test_a_refusal_is_an_answer_of_its_own_where_limits_are_the_point(kit: ModuleType) -> None:
    caller = refused(kit, "AtQuota")
    caller.question()
    (answer,) = caller.client.answers
    assert answer.succeeded
    assert answer.request_meta["name"] == "at quota refused"


def test_a_refusal_that_does_not_say_how_long_is_wrong(kit: ModuleType) -> None:
    caller = refused(kit, "AtQuota")
    caller.client.headers = {}
    caller.question()
    assert caller.client.answers[0].failures == ["retry-after-ms: None"]


def test_who_waited_as_told_must_be_admitted(kit: ModuleType) -> None:
    caller = refused(kit, "Patient")
    caller.question()
    assert len(caller.client.answers) == 2
    (told,) = caller.environment.events.request.fired
    assert (told["request_type"], told["name"]) == ("CHECK", "patient")
    assert str(told["exception"]) == "refused again after the 500 ms it was told to wait"


def test_who_is_admitted_does_not_wait(kit: ModuleType) -> None:
    module = importlib.import_module("bench.locust.limits")
    caller = user(kit, module.Patient)
    caller.question()
    assert len(caller.client.answers) == 1
    assert not caller.environment.events.request.fired
