"""The queue of a destination: on the disk before it counts, bounded, and whole after anything."""

import errno
import logging
import stat
from pathlib import Path

import msgspec
import pytest

from gateway.control import webhook_queue as module
from gateway.control.webhook_queue import MAX_BODY_BYTES, Pending, Queue


def event(number: int, due_us: int = 0) -> Pending:
    return Pending(f"e{number}", number, "{}", due_us=due_us)


def ids(queue: Queue) -> list[str]:
    found = []
    while (first := queue.next_due()) is not None:
        found.append(first.id)
        queue.done(first)
    return found


def test_what_waits_survives_a_restart(tmp_path: Path) -> None:
    queue = Queue(tmp_path, "ops")
    for number in range(3):
        queue.add(event(number))
    queue.done(event(1))
    queue.retry(msgspec.structs.replace(event(0), tries=4, due_us=99))
    again = Queue(tmp_path, "ops")
    assert len(again) == 2
    assert again.next_due() == event(2)
    assert ids(again) == ["e2", "e0"]
    assert stat.S_IMODE(queue.path.stat().st_mode) == 0o600


def test_each_destination_has_its_own(tmp_path: Path) -> None:
    Queue(tmp_path, "one").add(event(1))
    assert len(Queue(tmp_path, "other")) == 0


def test_what_is_due_first_comes_first(tmp_path: Path) -> None:
    queue = Queue(tmp_path, "ops")
    for number, due_us in enumerate([30, 10, 20]):
        queue.add(event(number, due_us))
    assert ids(queue) == ["e1", "e2", "e0"]
    assert queue.next_due() is None


def test_an_event_that_waits_is_not_taken_twice(tmp_path: Path) -> None:
    queue = Queue(tmp_path, "ops")
    queue.add(event(1))
    queue.retry(msgspec.structs.replace(event(1), tries=2))
    queue.add(event(1))
    found = queue.next_due()
    assert found is not None
    assert (len(queue), found.tries) == (1, 2)


def test_the_oldest_gives_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MAX_PENDING", 3)
    queue = Queue(tmp_path, "ops")
    with caplog.at_level(logging.ERROR, "gateway.webhooks"):
        for number in range(5):
            queue.add(event(number))
    assert (queue.dropped, caplog.text.count("given up")) == (2, 2)
    queue.retry(event(0))
    queue.done(event(1))
    assert ids(queue) == ["e2", "e3", "e4"]


def test_an_event_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at most"):
        Queue(tmp_path, "ops").add(Pending("e", 1, "x" * (MAX_BODY_BYTES + 1)))


def test_an_event_that_is_not_on_the_disk_was_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PENDING", 1)
    queue = Queue(tmp_path, "ops")
    queue.add(event(1))

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "replacing", refuse)
        with pytest.raises(OSError, match="No space"):
            queue.add(event(2))
        assert (len(queue), queue.dropped) == (1, 0)
        with pytest.raises(OSError, match="No space"):
            queue.done(event(1))
    assert len(queue) == 0
    assert ids(Queue(tmp_path, "ops")) == ["e1"]


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b'{"v":1,"events":[{"id":1}]}'])
def test_a_damaged_file_is_put_aside(tmp_path: Path, raw: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "webhooks" / "ops.json"
    path.parent.mkdir()
    path.write_bytes(raw)
    with caplog.at_level(logging.ERROR, "gateway.webhooks"):
        queue = Queue(tmp_path, "ops")
    assert len(queue) == 0
    assert "is damaged" in caplog.text
    assert path.with_name("ops.json.damaged").read_bytes() == raw
    queue.add(event(1))
    assert len(Queue(tmp_path, "ops")) == 1
