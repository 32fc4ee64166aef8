"""What a store's URL may say, and what is wrong with it in words that never show a password."""

import pytest

from gateway.config.storeurl import Place, StoreUrl, read


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://store", StoreUrl((Place("store", 6379),))),
        ("redis://store/", StoreUrl((Place("store", 6379),))),
        ("redis://10.0.0.1:7000/3", StoreUrl((Place("10.0.0.1", 7000),), db=3)),
        ("redis://[::1]:7000", StoreUrl((Place("::1", 7000),))),
        ("redis://a_b.c-d.:1", StoreUrl((Place("a_b.c-d.", 1),))),
        ("redis://[::1]", StoreUrl((Place("::1", 6379),))),
        ("redis://:secret@store", StoreUrl((Place("store", 6379),), password="secret")),
        ("redis://gw:p%40ss%2Fword@store:1/0", StoreUrl((Place("store", 1),), "gw", "p@ss/word")),
        ("redis://gw:p@ss@store", StoreUrl((Place("store", 6379),), "gw", "p@ss")),
        ("rediss://gw:x@store:6380", StoreUrl((Place("store", 6380),), "gw", "x", tls=True)),
        ("redis://one:7000,two,[::1]:7002", StoreUrl((Place("one", 7000), Place("two", 6379), Place("::1", 7002)))),
        ("sentinel://one/main", StoreUrl((Place("one", 26379),), service="main")),
        ("sentinel://one/0/0", StoreUrl((Place("one", 26379),), service="0")),  # a name as good as any
        (
            "sentinels://gw:x@one,two:1/my.main-1/2",
            StoreUrl((Place("one", 26379), Place("two", 1)), "gw", "x", "my.main-1", 2, tls=True),
        ),
    ],
)
def test_what_a_url_may_say(url: str, said: StoreUrl) -> None:
    assert read(url) == said


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "no scheme that is known"),
        ("http://store", "no scheme that is known"),
        ("store:6379", "no scheme that is known"),
        ("redis:/store", "no scheme that is known"),
        ("redis://", "names no host"),
        ("redis:///0", "names no host"),
        ("redis://one,,two", "names no host"),
        ("redis://one, two", "names no host"),
        ("redis://[store", "names no host"),
        ("redis://::1", "names no host"),
        ("redis://store:port", "names no host"),
        ("redis://u:hunter2/x@store", "names no host"),
        ("redis://u:123/x@store", "does not end with the number"),
        ("redis://store..example", "names a host that can be none"),
        (f"redis://{'a' * 64}.example", "names a host that can be none"),
        ("redis://[:::1]", "names a host that can be none"),
        ("redis://store:0", "a port that is not 1 to 65535"),
        ("redis://store:99999", "a port that is not 1 to 65535"),
        ("redis://store/zero", "does not end with the number of a database"),
        ("redis://store/-1", "does not end with the number of a database"),
        ("redis://store/0/1", "does not end with the number of a database"),
        ("redis://u:hunter2#@store", "part behind"),
        ("redis://store?db=1", "part behind"),
        ("redis://hunter2@store", "an account without a password"),
        ("sentinel://one,two", "names no primary"),
        ("sentinel://one//0", "names no primary"),
        ("sentinel://one/main/zero", "does not end with the number of a database"),
    ],
)
def test_what_is_wrong_is_said_without_what_may_be_a_password(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as wrong:
        read(url)
    assert "hunter2" not in str(wrong.value)
    assert "123" not in str(wrong.value)


def test_a_place_reads_as_it_is_written() -> None:
    assert (str(Place("one", 1)), str(Place("::1", 2))) == ("one:1", "[::1]:2")
