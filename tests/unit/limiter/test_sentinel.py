"""Whom sentinels name, whom we believe when they differ, and what is said when none knows."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from gateway.limiter import sentinel as module
from gateway.limiter.address import parse
from gateway.limiter.resp import bulk
from gateway.limiter.sentinel import Sentinels
from tests.fakes.shim_store import ShimStore

WITHIN_S = 20.0
THREE = "sentinel://gw:pw@s:1,s:2,s:3/main/5"

Said = Callable[[list[bytes]], bytes]


def array(*texts: bytes) -> bytes:
    return b"*%d\r\n" % len(texts) + b"".join(map(bulk, texts))


def naming(host: str, epoch: int) -> Said:
    """A sentinel that knows a primary at this host."""

    def said(words: list[bytes]) -> bytes:
        assert words[2] == b"main"
        if words[1] == b"GET-MASTER-ADDR-BY-NAME":
            return array(host.encode(), b"6379")
        return array(b"name", b"main", b"ip", b"old", b"config-epoch", b"%d" % epoch)

    return said


def saying(first: bytes, second: bytes = b"*0\r\n") -> Said:
    return lambda words: first if words[1] == b"GET-MASTER-ADDR-BY-NAME" else second


def in_loop(test: Callable[[ShimStore], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    async def whole() -> None:
        server = ShimStore()
        with server.serving():
            await asyncio.wait_for(test(server), WITHIN_S)
            assert server.connections == []

    def run() -> None:
        asyncio.run(whole())

    run.__name__ = test.__name__
    return run


async def primary(url: str = THREE) -> str:
    return str(await Sentinels(parse(url), None).primary())


@in_loop
async def test_the_primary_is_where_they_say_with_the_account_and_database_of_the_url(server: ShimStore) -> None:
    server.sentinels = dict.fromkeys((1, 2, 3), naming("10.0.0.1", 4))
    found = await Sentinels(parse(THREE), None).primary()
    assert (found.host, found.port, found.user, found.password, found.db) == ("10.0.0.1", 6379, "gw", "pw", 5)
    assert (found.service, found.others) == ("", ())


@in_loop
async def test_of_a_majority_the_latest_config_is_believed(server: ShimStore) -> None:
    server.sentinels = {1: naming("old", 9), 2: naming("new", 10), 3: naming("new", 10)}
    server.refuses_at = {3}
    assert await primary() == "redis://gw@new:6379/5"


@in_loop
async def test_a_majority_is_not_kept_waiting_by_a_host_that_is_gone(server: ShimStore) -> None:
    server.sentinels = {2: naming("here", 1), 3: naming("here", 1)}
    server.black_holes = {1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ANSWER_S", 2 * WITHIN_S)
        assert await primary() == "redis://gw@here:6379/5"


@in_loop
async def test_a_minority_is_believed_when_nobody_else_answers(server: ShimStore) -> None:
    server.sentinels = {2: naming("here", 1)}
    server.black_holes, server.refuses_at = {1}, {3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ANSWER_S", 0.5)
        assert await primary() == "redis://gw@here:6379/5"


@in_loop
async def test_when_none_knows_each_is_quoted(server: ShimStore) -> None:
    server.sentinels = {2: saying(b"*-1\r\n", b"-ERR No such master with that name\r\n")}
    server.black_holes, server.refuses_at = {1}, {3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ANSWER_S", 0.5)
        with pytest.raises(ConnectionError) as failed:
            await primary()
    said = str(failed.value)
    assert said.startswith("no sentinel says where main is: ")
    assert "s:2: refused: it monitors nothing named main" in said
    assert "s:3: [Errno 111] Connection refused" in said
    assert "no answer within 0.5 s" in said


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (saying(b"*1\r\n" + bulk(b"host"), array(b"config-epoch", b"1")), "does not answer as a sentinel"),
        (saying(array(b"host", b"port"), array(b"config-epoch", b"1")), "does not answer as a sentinel"),
        (saying(array(b"host", b"99999"), array(b"config-epoch", b"1")), "does not answer as a sentinel"),
        (saying(array(b"host..example", b"1"), array(b"config-epoch", b"1")), "does not answer as a sentinel"),
        (saying(array(b"host", b"1"), array(b"config-epoch", b"x")), "does not answer as a sentinel"),
        (saying(array(b"host", b"1"), array(b"name", b"main")), "does not answer as a sentinel"),
        (saying(array(b"host", b"1"), array(b"name")), "does not answer as a sentinel"),
        (saying(array(b"host", b"1"), b"+OK\r\n"), "does not answer as a sentinel"),
        (saying(array(b"host", b"1"), b"-NOPERM no\r\n"), "NOPERM no"),
        (saying(b"-ERR unknown command `SENTINEL`\r\n", b"-ERR\r\n"), "unknown command"),
        (saying(b"HTTP/1.1 400 Bad Request\r\n", b""), "does not speak as a store"),
    ],
)
def test_what_is_no_answer_of_a_sentinel_is_said(said: Said, why: str) -> None:
    async def asked(server: ShimStore) -> None:
        server.sentinels = {1: said}
        with pytest.raises(ConnectionError, match=why):
            await primary("sentinel://s:1/main")

    in_loop(asked)()


@in_loop
async def test_another_primary_is_believed_of_a_majority_only(server: ShimStore) -> None:
    sentinels = Sentinels(parse("sentinel://s:1,s:2,s:3/main"), None)
    server.sentinels = dict.fromkeys((1, 2, 3), naming("here", 2))
    here = await sentinels.primary()
    server.dialled.clear()
    for _ in range(3):
        assert await sentinels.name_another(here) is False
    assert sorted(server.dialled) == [("s", 1), ("s", 2), ("s", 3)]
    server.sentinels[2] = naming("old", 1)
    assert [await sentinels.name_another(here) for _ in range(3)] == [False] * 3
    server.sentinels = dict.fromkeys((1, 2, 3), naming("there", 3))
    assert await sentinels.name_another(here) is True
    server.refuses_at = {1, 2, 3}
    assert await sentinels.name_another(here) is False


@in_loop
async def test_a_sentinel_that_is_gone_is_not_waited_for(server: ShimStore) -> None:
    server.black_holes = {1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ANSWER_S", 0.5)
        assert await Sentinels(parse("sentinel://s:1/main"), None).name_another(parse("redis://here")) is False


@in_loop
async def test_the_password_is_shown_only_where_it_is_asked_for(server: ShimStore) -> None:
    heard: list[list[bytes]] = []
    locked = True

    def guarded(words: list[bytes]) -> bytes:
        nonlocal locked
        heard.append(words)
        if words[0] == b"AUTH":
            locked = words[1:] != [b"gw", b"pw"]
            return b"+OK\r\n" if not locked else b"-WRONGPASS no\r\n"
        return b"-NOAUTH Authentication required.\r\n" if locked else naming("here", 1)(words)

    server.sentinels = {1: guarded}
    assert await primary("sentinel://gw:pw@s:1/main") == "redis://gw@here:6379/0"
    assert [words[0] for words in heard] == [b"SENTINEL"] * 2 + [b"AUTH"] + [b"SENTINEL"] * 2
    heard.clear()
    await primary("sentinel://gw:pw@s:1/main")
    assert [words[0] for words in heard] == [b"SENTINEL"] * 2
    locked = True
    with pytest.raises(ConnectionError, match="NOAUTH"):
        await primary("sentinel://s:1/main")
    with pytest.raises(ConnectionError, match="WRONGPASS"):
        await primary("sentinel://:other@s:1/main")
