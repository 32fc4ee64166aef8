"""Where to dial next, after every kind of answer to the last dial."""

import asyncio
from collections.abc import Callable

import pytest

from gateway.limiter.address import parse
from gateway.limiter.whereabouts import Whereabouts
from tests.fakes.shim_store import ShimStore


def whereabouts(url: str) -> Whereabouts:
    return Whereabouts(parse(url), None)


def following(where: Whereabouts) -> str:
    return asyncio.run(_following(where))


async def _following(where: Whereabouts) -> str:
    return str(await where.following())


def test_the_nodes_of_the_url_are_dialled_in_turn() -> None:
    where = whereabouts("redis://gw:x@one,two:7/1")
    assert following(where) == following(where) == "redis://gw@one:6379/1"
    where.failed()
    assert following(where) == str(where.at) == "redis://gw@two:7/1"
    where.failed()
    assert following(where) == "redis://gw@one:6379/1"


def test_a_word_of_a_cluster_is_followed_and_forgotten_once_it_was_in_vain() -> None:
    where = whereabouts("redis://one,two")
    following(where)
    assert where.sent_elsewhere is False
    where.moved("MOVED 3999 10.0.0.2:7001")
    assert [where.sent_elsewhere] == [True]
    where.failed()  # the dial that was sent away
    assert following(where) == "redis://10.0.0.2:7001/0"
    assert where.sent_elsewhere is False
    where.failed()
    assert following(where) == "redis://one:6379/0"


@pytest.mark.parametrize(
    ("said", "at"),
    [
        ("MOVED 1 :7001", "redis://one:7001/0"),
        ("MOVED 1 [::1]:7001", "redis://[::1]:7001/0"),
        ("MOVED 1 ::1:7001", "redis://[::1]:7001/0"),
        ("MOVED 1 two.example:7001", "redis://two.example:7001/0"),
        ("MOVED 1 two:port", "redis://one:6379/0"),
        ("MOVED 1 two:99999", "redis://one:6379/0"),
        ("MOVED 1 two..example:7001", "redis://one:6379/0"),
        ("MOVED 1 ?:7001", "redis://one:6379/0"),
        ("MOVED 1", "redis://one:6379/0"),
        ("MOVED", "redis://one:6379/0"),
    ],
)
def test_what_a_cluster_may_say(said: str, at: str) -> None:
    where = whereabouts("redis://one")
    following(where)
    where.moved(said)
    assert following(where) == at


def test_without_sentinels_nothing_is_replaced() -> None:
    assert asyncio.run(whereabouts("redis://one,two").replaced()) is False


def test_an_empty_host_is_the_one_that_said_so_wherever_it_is() -> None:
    where = whereabouts("redis://one")
    following(where)
    where.moved("MOVED 1 two:7001")
    following(where)
    where.moved("MOVED 1 :7002")
    assert following(where) == "redis://two:7002/0"


def test_sentinels_are_asked_at_each_dial_and_blamed_when_they_do_not_know() -> None:
    async def asked() -> None:
        server = ShimStore()
        with server.serving():
            where = whereabouts("sentinel://gw:x@s:1/main/2")
            server.sentinels = {1: named("a")}
            assert await _following(where) == "redis://gw@a:6379/2"
            server.sentinels = {1: named("b")}
            assert await where.replaced() is True
            where.failed()
            assert await _following(where) == "redis://gw@b:6379/2"
            assert await where.replaced() is False
            server.refuses_at = {1}
            with pytest.raises(ConnectionError):
                await where.following()
            assert str(where.at) == "sentinel://gw@s:1/main/2"

    def named(host: str) -> Callable[[list[bytes]], bytes]:
        return lambda words: (
            b"*2\r\n$1\r\n%b\r\n$4\r\n6379\r\n" % host.encode()
            if words[1] == b"GET-MASTER-ADDR-BY-NAME"
            else b"*2\r\n$12\r\nconfig-epoch\r\n$1\r\n1\r\n"
        )

    asyncio.run(asked())
