"""What waits for its turn keeps its order and its limit."""

from gateway.exchange import Exchange
from gateway.listener.head import Head
from gateway.listener.waiting import MAX_ASIDE_BYTES, Aside, Queued


def test_bytes_come_back_in_order_and_once() -> None:
    aside = Aside()
    assert aside.put(b"a")
    assert aside.put(b"bc")
    assert aside.size == 3
    assert (aside.take(), aside.size, aside.take()) == (b"abc", 0, b"")


def test_too_much_is_said_and_the_limit_counts_what_is_there_alone() -> None:
    aside = Aside()
    assert aside.put(b"x" * MAX_ASIDE_BYTES)
    assert not aside.put(b"x")
    aside.take()
    assert aside.put(b"x" * MAX_ASIDE_BYTES)


def test_a_queued_request_is_incomplete_until_it_is_said() -> None:
    head = Head("POST", version_11=True)
    queued = Queued(Exchange("x", head, "", keep_alive=True), head, 2, None)
    assert (queued.chunks, queued.complete, queued.length) == ([], False, 2)
