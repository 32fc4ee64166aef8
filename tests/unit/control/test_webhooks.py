"""Events over real HTTP: signed, tried again within bounds, over restarts, and never to where they must not go."""

import asyncio
import base64
import errno
import hashlib
import hmac
import json
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from gateway.control import webhook_queue
from gateway.control import webhooks as module
from gateway.control.webhook_queue import Pending, Queue
from gateway.control.webhooks import Destination, Sender, Webhooks, check, key_of, pause_s, signed_headers
from tests.fakes.hooked import Hooked

SECRET = "s3cret"
NOW_US = 1_800_000_000_000_000


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(module, "LONGEST_WAIT_S", 0.005)
    monkeypatch.setattr(module, "DISK_WAIT_S", 0.001)


def to(hooked: Hooked, name: str = "ops", *, timeout_s: float = 5.0, types: tuple[str, ...] = ()) -> Destination:
    return Destination(name, hooked.url, SECRET, types, allow_private=True, timeout_s=timeout_s)


def played(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scene())


async def sending(state_dir: Path, *destinations: Destination) -> Webhooks:
    webhooks = Webhooks(state_dir)
    await webhooks.adopt(destinations)
    return webhooks


# --- one event ------------------------------------------------------------------------------------------------------


def test_an_event_comes_signed_and_once(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Hooked(200) as hooked:
            webhooks = await sending(tmp_path, to(hooked))
            await webhooks.tell("budget.crossed", "e1", {"percent": 70})
            (came,) = await hooked.requests(1)
            sender = webhooks.senders["ops"]
            await hooked.until(lambda: sender.sent == 1)
            await webhooks.close()
            assert len(hooked.came) == 1
        told = json.loads(came.body)
        assert (told["id"], told["type"], told["data"]) == ("e1", "budget.crossed", {"percent": 70})
        assert came.headers["Content-Type"] == "application/json"
        assert came.headers["webhook-id"] == "e1"
        signed = b"e1." + came.headers["webhook-timestamp"].encode() + b"." + came.body
        mac = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
        assert came.headers["webhook-signature"] == f"v1,{mac}"

    played(scene)
    assert len(Queue(tmp_path, "ops")) == 0


def test_a_signature_is_of_id_time_and_body() -> None:
    base = signed_headers(b"k", "e1", b"{}", 5)
    assert base["webhook-signature"] == "v1,SZtyvesu9aqRrHkt2iHz672eQenmoG4b9fRBLQzG0OY="
    others = [
        signed_headers(*given) for given in ((b"j", "e1", b"{}", 5), (b"k", "e2", b"{}", 5), (b"k", "e1", b"", 5))
    ]
    others.append(signed_headers(b"k", "e1", b"{}", 6))
    assert len({headers["webhook-signature"] for headers in [base, *others]}) == 5


def test_a_secret_may_be_written_in_base64() -> None:
    assert key_of("whsec_" + base64.b64encode(b"\x00key").decode()) == b"\x00key"
    assert key_of("plain") == b"plain"


@pytest.mark.parametrize("answer", [400, 404, 410, 429, 500, 503, "cut", "/elsewhere", 302, 304])
def test_what_was_not_taken_is_tried_again_as_the_same_event(tmp_path: Path, answer: int | str) -> None:
    async def scene() -> None:
        async with Hooked(answer, answer, 204) as hooked:
            webhooks = await sending(tmp_path, to(hooked))
            await webhooks.tell("t", "e1", None)
            sender = webhooks.senders["ops"]
            await hooked.until(lambda: sender.sent == 1)
            assert (sender.failures, sender.failing, len(sender.queue), hooked.elsewhere) == (2, "", 0, 0)
            assert len({came.body for came in hooked.came}) == 1
            assert {came.headers["webhook-id"] for came in hooked.came} == {"e1"}
            assert not any("Cookie" in came.headers for came in hooked.came)
            await webhooks.close()

    played(scene)


def test_an_answer_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Hooked("hang", 204) as hooked:
            webhooks = await sending(tmp_path, to(hooked, timeout_s=0.05))
            await webhooks.tell("t", "e1", None)
            await hooked.until(lambda: webhooks.senders["ops"].sent == 1)
            assert webhooks.senders["ops"].failures == 1
            await webhooks.close()

    played(scene)


def test_nobody_there(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Hooked() as hooked:
            destination = to(hooked)
        webhooks = await sending(tmp_path, destination)
        await webhooks.tell("t", "e1", None)
        await hooked.until(lambda: webhooks.senders["ops"].failures > 1)
        assert "it cannot be reached" in webhooks.senders["ops"].failing
        await webhooks.close()

    played(scene)


# --- bounds ---------------------------------------------------------------------------------------------------------


def test_tries_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(module, "MAX_TRIES", 4)

    async def scene() -> None:
        async with Hooked(500) as hooked:
            webhooks = await sending(tmp_path, to(hooked))
            await webhooks.tell("t", "e1", None)
            sender = webhooks.senders["ops"]
            await hooked.until(lambda: sender.given_up == 1 and not len(sender.queue))
            assert (len(hooked.came), sender.failures) == (4, 4)
            await webhooks.close()

    with caplog.at_level(logging.WARNING, "gateway.webhooks"):
        played(scene)
    assert "event e1 is given up after 4 tries: it answered 500" in caplog.text
    assert caplog.text.count("did not take") == 1


def test_age_is_bounded(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Hooked(500) as hooked:
            queue = Queue(tmp_path, "ops")
            queue.add(Pending("old", NOW_US - module.MAX_AGE_US, "{}"))
            queue.add(Pending("from the future", NOW_US + 5, "{}"))
            sender = Sender(to(hooked), queue, lambda: NOW_US)
            running = asyncio.create_task(sender.run())
            await hooked.until(lambda: sender.given_up == 1 and sender.failures > 1)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            assert len(queue) == 1

    played(scene)


@pytest.mark.parametrize(
    ("tries", "least", "most"), [(1, 0.5, 1), (2, 1, 2), (5, 8, 16), (11, 512, 1024), (60, 900, 1800)]
)
def test_pauses_grow_with_some_chance_to_a_longest_one(
    tries: int, least: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT_S", 1.0)
    monkeypatch.setattr(module, "LONGEST_WAIT_S", 1_800.0)
    assert pause_s(tries, lambda: 0.0) == most
    assert pause_s(tries, lambda: 1.0) == least
    assert least <= pause_s(tries) <= most


def test_an_event_in_its_pause_holds_up_no_other(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Hooked(204) as hooked:
            queue = Queue(tmp_path, "ops")
            queue.add(Pending("waits", NOW_US, "{}", 1, NOW_US + 4_000))
            sender = Sender(to(hooked), queue, lambda: NOW_US)
            running = asyncio.create_task(sender.run())
            await sender.add(Pending("new", NOW_US, "{}"))
            (came,) = await hooked.requests(1)
            assert came.headers["webhook-id"] == "new"
            await hooked.until(lambda: len(queue) == 1)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    played(scene)


def test_a_clock_that_was_set_back_lets_nothing_wait_for_ever(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Hooked(204) as hooked:
            Queue(tmp_path, "ops").add(Pending("e1", NOW_US, "{}", 1, NOW_US * 2))
            webhooks = await sending(tmp_path, to(hooked))
            await hooked.requests(1)
            await webhooks.close()

    played(scene)


# --- many -----------------------------------------------------------------------------------------------------------


def test_a_restart_loses_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Hooked(500) as hooked:
            webhooks = await sending(tmp_path, to(hooked))
            for number in range(5):
                await webhooks.tell("t", f"e{number}", number)
            await hooked.requests(2)
            await webhooks.close()
            hooked.answers, before = [204], len(hooked.came)
            again = await sending(tmp_path, to(hooked))
            await hooked.until(lambda: again.senders["ops"].sent == 5)
            assert {came.headers["webhook-id"] for came in hooked.came[before:]} == {
                f"e{number}" for number in range(5)
            }
            await again.close()

    played(scene)
    assert len(Queue(tmp_path, "ops")) == 0


def test_each_destination_hears_what_it_wants_at_its_own_pace(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Hooked("hang") as slow, Hooked(204) as quick, Hooked(204) as other:
            webhooks = await sending(
                tmp_path, to(slow, "slow"), to(quick, "quick", types=("a", "b")), to(other, "other", types=("b",))
            )
            await webhooks.tell("a", "e1", None)
            await quick.requests(1)
            await webhooks.tell("b", "e2", None)
            await other.requests(1)
            await quick.requests(2)
            assert [came.headers["webhook-id"] for came in other.came] == ["e2"]
            await webhooks.close()

    played(scene)


def test_a_reload_changes_where_events_go(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Hooked(500) as one, Hooked(204) as other:
            webhooks = await sending(tmp_path, to(one))
            await webhooks.tell("t", "e1", None)
            await one.requests(1)
            sender = webhooks.senders["ops"]
            await webhooks.adopt([to(one)])
            assert webhooks.senders["ops"] is sender
            await webhooks.adopt([to(other)])
            (came,) = await other.requests(1)
            assert came.headers["webhook-id"] == "e1"
            await webhooks.adopt([])
            await webhooks.tell("t", "e2", None)
            assert webhooks.senders == {}
            await webhooks.close()

    played(scene)


def test_what_came_of_events_is_counted_over_reloads(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Hooked(500, 204) as one, Hooked(204) as other:
            webhooks = await sending(tmp_path, to(one))
            for hooked in (one, other):
                await webhooks.adopt([to(hooked)])
                await webhooks.tell("t", hooked.url, None)
                sender = webhooks.senders["ops"]
                await hooked.until(lambda sender=sender: sender.sent == 1)  # type: ignore[misc]
            assert webhooks.results == {("ops", "sent"): 2, ("ops", "failed"): 1, ("ops", "given_up"): 0}
            await webhooks.close()
            assert webhooks.results["ops", "sent"] == 2

    played(scene)


# --- the disk -------------------------------------------------------------------------------------------------------


def refuse(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_an_event_that_cannot_be_kept_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        async with Hooked() as hooked:
            webhooks = await sending(tmp_path, to(hooked))
            monkeypatch.setattr(webhook_queue, "replacing", refuse)
            with pytest.raises(OSError, match="No space"):
                await webhooks.tell("t", "e1", None)
            await webhooks.close()
            assert hooked.came == []

    played(scene)


def test_a_disk_that_is_full_meanwhile_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        async with Hooked(500, 500, 204) as hooked:
            webhooks = await sending(tmp_path, to(hooked))
            await webhooks.tell("t", "e1", None)
            await hooked.requests(1)
            monkeypatch.setattr(webhook_queue, "replacing", refuse)
            await hooked.until(lambda: webhooks.senders["ops"].sent == 1)
            await webhooks.close()
            assert len(hooked.came) == 3

    with caplog.at_level(logging.ERROR, "gateway.webhooks"):
        played(scene)
    assert "its queue cannot be written" in caplog.text


# --- where events must not go ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://hooks.example/x", "use https"),
        ("ftp://hooks.example/x", "must begin with https"),
        ("https:///x", "must begin with https"),
        ("hooks.example", "must begin with https"),
        ("https://[::1", "is none"),
        ("https://ann:secret@hooks.example/", "no user name"),
        ("https://127.0.0.1/", "not a public address"),
        ("https://169.254.169.254/latest/meta-data", "not a public address"),
        ("https://[::1]:8081/", "not a public address"),
        ("https://[::ffff:10.0.0.1]/", "not a public address"),
    ],
)
def test_a_url_that_events_cannot_go_to(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check(Destination("ops", url, SECRET))


def test_a_destination_without_a_secret() -> None:
    with pytest.raises(ValueError, match="its secret is empty"):
        check(Destination("ops", "https://hooks.example/", ""))
    with pytest.raises(ValueError, match=r"base64|padding"):
        check(Destination("ops", "https://hooks.example/", "whsec_?"))


def test_what_is_private_may_be_allowed() -> None:
    check(Destination("ops", "http://10.0.0.1:9000/hook", SECRET, allow_private=True))


def test_a_public_name_of_a_private_address_is_not_connected_to(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Hooked() as hooked:
            private = hooked.url.replace("127.0.0.1", "localhost")
            queue = Queue(tmp_path, "ops")
            queue.add(Pending("e1", NOW_US, "{}"))
            sender = Sender(Destination("ops", private, SECRET), queue, lambda: NOW_US)
            running = asyncio.create_task(sender.run())
            await hooked.until(lambda: sender.failures > 0)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            assert hooked.came == []
            assert "localhost has no public address" in sender.failing

    played(scene)


def test_a_refused_config_changes_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Hooked() as hooked:
            webhooks = await sending(tmp_path, to(hooked))
            sender = webhooks.senders["ops"]
            with pytest.raises(ValueError, match="not a public address"):
                await webhooks.adopt([Destination("bad", "https://10.0.0.1/", SECRET)])
            assert webhooks.senders == {"ops": sender}
            await webhooks.close()

    played(scene)


def test_what_is_secret_is_not_shown() -> None:
    shown = repr(Destination("ops", "https://hooks.example/token", SECRET))
    assert shown == "Destination('ops')"
