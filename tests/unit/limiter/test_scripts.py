"""Operations to bytes and answers to values; what the bytes do is told in tests/conformance."""

import hashlib
from collections.abc import Callable

import pytest

from gateway.limiter.engine import Amount, Outcome, Renewal, Reserved, Settled, Slice, Standing
from gateway.limiter.hold import State
from gateway.limiter.resp import Parser
from gateway.limiter.scripts import (
    MAX_NAME_BYTES,
    MAX_RENEWALS,
    NAMES,
    Calls,
    encoded,
    leased,
    load_scripts,
    peeked,
    renewed,
    reserved,
    settled,
    spec_text,
)
from gateway.limiter.spec import MAX_AMOUNT, MAX_LEASE_MS, Kind, rate, slots, window

SCRIPTS = load_scripts()
RATE = rate(5_000, 1_000, 60_000)
WINDOW = window(7, 1_000, 2_000, shadow=True)
SLOTS = slots(3)
MANY = [Amount(f"r{number}", RATE, 1) for number in range(17)]


def words(call: bytes) -> list[bytes]:
    (read,) = Parser().feed(call)
    assert isinstance(read, list)
    return read


def test_scripts_are_named_by_the_digest_a_store_computes() -> None:
    assert set(SCRIPTS) == set(NAMES)
    for script in SCRIPTS.values():
        assert words(script.load) == [b"SCRIPT", b"LOAD", script.text]
        assert script.sha == hashlib.sha1(script.text, usedforsecurity=False).hexdigest().encode()
        assert script.text.startswith(b"-- The arithmetic of buckets")


def test_buckets_are_forgotten_by_their_keys() -> None:
    call = Calls(SCRIPTS, "eu").forget([(Kind.RATE, "a b"), (Kind.WINDOW, "w")])
    assert words(call) == [b"DEL", b"{gw:eu}:1:r:a%20b", b"{gw:eu}:1:w:w"]


def test_a_reserve() -> None:
    takes = [Amount("r", RATE, 4_000), Amount("w", WINDOW, 5), Amount("s", SLOTS, 1)]
    call = Calls(SCRIPTS, "eu").reserve("h", takes, lease_ms=9, attempt=2, releases=[Amount("r", RATE, 0)])
    assert words(call) == [
        b"EVALSHA", SCRIPTS["reserve"].sha, b"5",
        b"{gw:eu}:1:h:h", b"{gw:eu}:1:r:r", b"{gw:eu}:1:w:w", b"{gw:eu}:1:s:s", b"{gw:eu}:1:r:r",
        b"3 2 9 86400000", b"r0 5000 1000 60000 4000", b"w1 7 1000 2000 5", b"s0 3 0 0 1", b"r0 5000 1000 60000 0",
    ]  # fmt: skip


def test_the_name_of_a_memory_is_a_plain_key_of_the_domain() -> None:
    calls = Calls(SCRIPTS, "eu")
    assert words(calls.name_epoch("ab")) == [b"SET", b"{gw:eu}:1:epoch", b"ab", b"NX"]
    assert words(calls.ask_epoch("node 1")) == [b"MGET", b"{gw:eu}:1:epoch", b"{gw:eu}:1:known:node%201"]
    assert words(calls.leave_known("n", 7)) == [b"SET", b"{gw:eu}:1:known:n", b"7", b"PX", b"172800000"]


def test_a_renewal() -> None:
    call = Calls(SCRIPTS, keep_ms=5).renew([Renewal("a", ("s", "t")), Renewal("b")], lease_ms=10)
    assert words(call)[2:] == [
        b"4", b"{gw:main}:1:h:a", b"{gw:main}:1:s:s", b"{gw:main}:1:s:t", b"{gw:main}:1:h:b", b"10 5", b"2", b"0"
    ]  # fmt: skip


def test_a_lease() -> None:
    call = Calls(SCRIPTS).lease("node 1", 8, "r", RATE, want=100, least=10, unused=-3, lease_ms=50)
    assert words(call)[2:] == [
        b"2", b"{gw:main}:1:l:node%201:r:r", b"{gw:main}:1:r:r", b"8 100 -3 50 86400000", b"r0 5000 1000 60000 10"
    ]  # fmt: skip


def test_the_same_bucket_is_written_anew_when_its_limit_or_amount_changes() -> None:
    calls = Calls(SCRIPTS)
    asked = [Amount("r", RATE, 5), Amount("r", RATE, 6), Amount("r", rate(1, 2, 3_000), 6), Amount("r", SLOTS, 6)]
    assert [words(calls.peek([one]))[3:] for one in asked] == [
        [b"{gw:main}:1:r:r", b"r0 5000 1000 60000 5"],
        [b"{gw:main}:1:r:r", b"r0 5000 1000 60000 6"],
        [b"{gw:main}:1:r:r", b"r0 1 2 3000 6"],
        [b"{gw:main}:1:s:r", b"s0 3 0 0 6"],
    ]


def test_no_bytes_of_an_earlier_call_leak_into_a_later_one() -> None:
    calls = Calls(SCRIPTS)
    first = calls.reserve("a", [Amount("r", RATE, 5)], lease_ms=9, attempt=0, releases=())
    calls.reserve("b", [Amount("r", RATE, 6)], lease_ms=10, attempt=1, releases=())
    assert calls.reserve("a", [Amount("r", RATE, 5)], lease_ms=9, attempt=0, releases=()) == first


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda calls: calls.peek([Amount("r", RATE, MAX_AMOUNT + 1)]), "amount is"),
        (lambda calls: calls.settle("h", [Amount("r", RATE, -1)]), "amount is -1"),
        (lambda calls: calls.settle("h", [Amount("r", RATE, -5)]), "amount is -5"),
        (lambda calls: calls.reserve("h", [], lease_ms=0, attempt=0, releases=()), "lease_ms is 0"),
        (lambda calls: calls.reserve("h", [], lease_ms=1, attempt=-1, releases=()), "amount is -1"),
        (lambda calls: calls.reserve("h", MANY, lease_ms=1, attempt=0, releases=()), "17 takes and 0 releases"),
        (lambda calls: calls.reserve("h", [], lease_ms=1, attempt=0, releases=MANY), "0 takes and 17 releases"),
        (lambda calls: calls.renew([Renewal("a")], lease_ms=MAX_LEASE_MS + 1), "lease_ms is"),
        (lambda calls: calls.renew([], lease_ms=1), "0 holds to renew, must be 1 to 100"),
        (lambda calls: calls.renew([Renewal("a")] * (MAX_RENEWALS + 1), lease_ms=1), "101 holds"),
        (lambda calls: calls.peek([]), "at least one"),
        (lambda calls: calls.lease("n", 1, "s", SLOTS, want=1, least=1, unused=0, lease_ms=1), "counts slots"),
        (lambda calls: calls.lease("n", 1, "r", RATE, want=1, least=2, unused=0, lease_ms=1), "least is 2"),
        (lambda calls: calls.lease("n", 1, "r", RATE, want=MAX_AMOUNT + 1, least=2, unused=0, lease_ms=1), "amount"),
        (lambda calls: calls.lease("n", 1, "r", RATE, want=1, least=1, unused=-MAX_AMOUNT - 1, lease_ms=1), "amount"),
        (lambda calls: calls.lease("n", -1, "r", RATE, want=1, least=1, unused=0, lease_ms=1), "turn is -1"),
        (lambda calls: calls.settle("\ud800", []), "surrogates not allowed"),
    ],
)
def test_what_is_out_of_bounds_is_refused_before_it_is_sent(call: Callable[[Calls], bytes], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call(Calls(SCRIPTS))


@pytest.mark.parametrize("domain", ["", "a}b", "a b", "ä", "a:b"])
def test_a_domain_is_plain_text(domain: str) -> None:
    with pytest.raises(ValueError, match="domain"):
        Calls(SCRIPTS, domain)


def test_names_stay_readable_and_apart() -> None:
    assert encoded("team-tpm|team=search|model=gpt-4o") == "team-tpm|team=search|model=gpt-4o"
    assert encoded("a b%{c}~\n") == "a%20b%25%7Bc%7D%7E%0A"
    assert encoded("é") == "%C3%A9"
    names = ["a b", "a%20b", "a+b", "a~b", "a%7Eb", "A b", "ab", "", " "]
    assert len({encoded(name) for name in names}) == len(names)


def test_a_long_name_is_cut_and_told_apart_by_its_hash() -> None:
    one, other = encoded("x" * 500), encoded("x" * 499 + "y")
    assert len(one) == len(other) == MAX_NAME_BYTES
    assert one[:100] == other[:100]
    assert one != other
    assert encoded(one) != one  # a name that looks like a hash is another name
    assert encoded("x" * MAX_NAME_BYTES) == "x" * MAX_NAME_BYTES


def test_many_names_do_not_fill_the_memory() -> None:
    calls = Calls(SCRIPTS)
    for number in range(70_000):
        calls.peek([Amount(f"user-{number}", SLOTS, 1)])
    assert len(calls._known) <= 65_536


def test_a_key_is_made_of_kind_and_name() -> None:
    assert [Calls(SCRIPTS).key(kind, "x") for kind in Kind] == [
        b"{gw:main}:1:r:x",
        b"{gw:main}:1:w:x",
        b"{gw:main}:1:s:x",
    ]
    assert spec_text(SLOTS) == b"s0 3 0 0 "


def test_answers_become_values() -> None:
    assert reserved(b"[1,-1,0,[5,-6]]") == Reserved(Outcome.ADMITTED, -1, 0, (5, -6))
    assert reserved(b"[0,2,-1,[]]") == Reserved(Outcome.REFUSED, 2, -1, ())
    assert reserved(b"[2,-1,0,[7]]").outcome is Outcome.SETTLED
    assert reserved(b"[3,-1,0,[7]]").outcome is Outcome.EXPIRED
    assert settled(b"[3,[9]]") == Settled(State.EXPIRED, (9,))
    assert [settled(b"[%d,[]]" % number).found for number in (0, 1, 2)] == [State.UNKNOWN, State.OPEN, State.SETTLED]
    assert renewed(b"[1,0,2]") == (State.OPEN, State.UNKNOWN, State.SETTLED)
    assert leased(b"[5,-6,7]") == Slice(5, -6, 7)
    assert peeked(b"[[5,0],[-6,-1]]") == (Standing(5, 0), Standing(-6, -1))


@pytest.mark.parametrize(
    "answer", [b"", b"OK", b"[]", b"[9,-1,0,[]]", b'["1",-1,0,[]]', b"[1,-1,0,[1.5]]", b"[1,-1,0,[]]x"]
)
def test_what_is_no_answer_is_no_value(answer: bytes) -> None:
    with pytest.raises(ValueError):
        reserved(answer)
