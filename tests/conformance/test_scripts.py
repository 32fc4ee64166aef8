"""The scripts of lua/: the shim that watches them has teeth, they keep its rules, and they give the model's numbers."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.limiter import bucket, spec
from gateway.limiter.engine import Amount, Outcome, Renewal
from gateway.limiter.resp import Parser, ReplyError
from gateway.limiter.scripts import NAMES, Calls, load_scripts, reserved
from gateway.limiter.spec import MAX_AMOUNT, MAX_PERIOD_MS, rate, slots, window
from tests.fakes.limit_engines import lua_engine, store_engine
from tests.fakes.limit_model import LimitModel
from tests.fakes.limit_sequences import START_MS, play, sequence
from tests.fakes.lua_shim import ForbiddenByShim, LuaShim, ScriptError
from tests.fakes.store_server import StoreConnection, any_store, connect

LUA = Path(__file__).parents[2] / "lua"
SCRIPTS = load_scripts()
TPM = rate(5_000, 1_000, 1_000)
BUDGET = window(100, START_MS, START_MS + 60_000)


def first_take(calls: Calls, hold: str, *takes: Amount, lease_ms: int = 30_000) -> bytes:
    return calls.reserve(hold, takes, lease_ms=lease_ms, attempt=0, releases=())


@pytest.fixture(params=[51, 54])
def shim(request: pytest.FixtureRequest) -> LuaShim:
    shim = LuaShim(request.param, SCRIPTS)
    shim.now_ms = START_MS
    return shim


@pytest.fixture(scope="module")
def store() -> Iterator[StoreConnection]:
    with any_store() as url, connect(url) as connection:
        yield connection


# --- the shim refuses what a store would -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("return redis.call('MGET', 'other')", "not among KEYS"),
        ("return redis.call('PEXPIRE', KEYS[1] .. 'x', '1')", "not among KEYS"),
        ("return redis.call('KEYS', '*')", "not among the commands"),
        ("return redis.call('SCAN', '0')", "not among the commands"),
        ("return redis.call('PEXPIRE', KEYS[1], 1)", "numbers leave by %d"),
        ("return 1", "numbers leave by %d"),
        ("return {'1', '2'}", "is no string"),
        ("return cjson.encode({})", "no global cjson"),
        ("return tostring(os.time())", "no global os"),
        ("total = 1", "global total is written"),
    ],
)
def test_the_shim_has_teeth(shim: LuaShim, source: str, said: str) -> None:
    script = shim.compile(source.encode())
    with pytest.raises((ForbiddenByShim, ScriptError), match=said):
        shim.evaluate(script, [b"{gw:main}:1:r:x"], [])


def test_the_shim_expires_keys_by_its_own_clock(shim: LuaShim) -> None:
    write = shim.compile(b"redis.call('SET', KEYS[1], 'v', 'PX', '10') return ''")
    read = shim.compile(b"return redis.call('MGET', KEYS[1])[1] or 'gone'")
    shim.evaluate(write, [b"k"], [])
    shim.now_ms += 9
    assert shim.evaluate(read, [b"k"], []) == b"v"
    shim.now_ms += 1
    assert shim.evaluate(read, [b"k"], []) == b"gone"


# --- what the scripts do and leave undone ----------------------------------------------------------------------------


def test_every_script_opens_with_its_contract() -> None:
    for name in NAMES:
        head = re.match(r"(?:--.*\n)+", (LUA / f"{name}.lua").read_text())
        assert head is not None
        for word in ("KEYS", "ARGV", "Returns", "Clock:", "Atomic:", name.upper()):
            assert word in head[0], (name, word)
    assert {path.stem for path in LUA.glob("*.lua")} == {*NAMES, "bucket"}


def test_the_constants_are_those_of_the_arithmetic() -> None:
    text = (LUA / "bucket.lua").read_text()
    said = {
        name: int(number) for name, number in re.findall(r"^local (MAX_\w+|SLOT_WAIT_MS) = (\d+)", text, re.MULTILINE)
    }
    assert said["MAX_RATE_USED"] == spec.MAX_RATE_USED
    assert said["MAX_WINDOW_USED"] == spec.MAX_WINDOW_USED
    assert said["MAX_WAIT_MS"] == bucket.MAX_WAIT_MS
    assert said["SLOT_WAIT_MS"] == bucket.SLOT_WAIT_MS


def test_a_refusal_and_a_peek_write_nothing(shim: LuaShim) -> None:
    calls = Calls(SCRIPTS)
    shim.run(first_take(calls, "a", Amount("r", TPM, 4_000), Amount("s", slots(1), 1)))
    before = repr(sorted(shim.rows.items()))
    shim.now_ms += 100
    refused = [Amount("r", TPM, 4_999), Amount("s", slots(1), 1), Amount("w", BUDGET, 1)]
    assert shim.run(first_take(calls, "b", *refused)).startswith(b"[0,")
    assert set(shim.calls) <= {b"TIME", b"MGET", b"ZCOUNT"}
    shim.run(calls.peek(refused))
    assert set(shim.calls) <= {b"TIME", b"MGET", b"ZCOUNT"}
    assert repr(sorted(shim.rows.items())) == before


def test_all_rows_of_an_admission_are_written_by_one_command(shim: LuaShim) -> None:
    calls = Calls(SCRIPTS)
    takes = [Amount("r", TPM, 1), Amount("w", BUDGET, 1), Amount("s", slots(1), 1)]
    shim.run(first_take(calls, "a", *takes))
    writes = [name for name in shim.calls if name not in {b"TIME", b"MGET", b"ZCOUNT"}]
    assert writes == [b"ZADD", b"ZREMRANGEBYSCORE", b"PEXPIRE", b"MSET", b"PEXPIRE", b"PEXPIRE", b"PEXPIRE"]
    shim.run(calls.settle("a", takes))
    writes = [name for name in shim.calls if name not in {b"TIME", b"MGET", b"ZCOUNT"}]
    assert writes == [b"MSET", b"PEXPIRE", b"ZREM"]  # used as reserved: no row changes


def test_every_key_that_is_written_goes_away_by_itself(shim: LuaShim) -> None:
    calls = Calls(SCRIPTS)
    takes = [Amount("r", TPM, 1), Amount("w", BUDGET, 1), Amount("s", slots(1), 1)]
    shim.run(first_take(calls, "a", *takes))
    shim.run(calls.renew([Renewal("a", ("s",))], lease_ms=1_000))
    shim.run(calls.lease("n", 1, "r", TPM, want=5, least=1, unused=0, lease_ms=1_000))
    assert set(shim.rows) == set(shim.until_ms)
    shim.run(calls.settle("a", takes))
    assert set(shim.rows) == set(shim.until_ms)


def test_a_row_is_kept_until_it_is_worth_nothing(shim: LuaShim) -> None:
    calls = Calls(SCRIPTS)
    slow = rate(MAX_AMOUNT, MAX_AMOUNT // 10, MAX_PERIOD_MS)
    shim.run(first_take(calls, "a", Amount("r", slow, MAX_AMOUNT), Amount("w", BUDGET, 1)))
    shim.now_ms += 10 * MAX_PERIOD_MS - 1
    assert shim.run(calls.peek([Amount("r", slow, MAX_AMOUNT)])) == b"[[999999999962,1]]"
    shim.now_ms = START_MS + 59_999
    assert shim.run(calls.peek([Amount("w", BUDGET, 100)])) == b"[[99,1]]"


def test_a_row_is_kept_longer_while_the_clock_is_behind_it(shim: LuaShim) -> None:
    calls = Calls(SCRIPTS)
    shim.now_ms += 300_000
    shim.run(first_take(calls, "a", Amount("r", TPM, 1_000)))
    shim.now_ms -= 300_000
    shim.run(first_take(calls, "b", Amount("r", TPM, 3_000)))
    assert shim.until_ms[b"{gw:main}:1:r:r"] >= START_MS + 300_000 + 4_000


def test_the_mark_of_a_settled_hold_outlives_the_longest_replay(shim: LuaShim) -> None:
    calls = Calls(SCRIPTS, keep_ms=86_400_000)
    shim.run(calls.settle("a", [Amount("w", BUDGET, 1)]))
    shim.now_ms += 86_400_000 - 1
    assert shim.run(calls.settle("a", [Amount("w", BUDGET, 1)])).startswith(b"[2,")
    shim.now_ms += 1
    assert shim.run(calls.settle("a", [Amount("w", BUDGET, 1)])).startswith(b"[0,")


def test_slots_left_by_the_dead_are_swept_when_others_come(shim: LuaShim) -> None:
    calls = Calls(SCRIPTS)
    for number in range(50):
        shim.run(first_take(calls, f"h{number}", Amount("s", slots(1), 1), lease_ms=1_000))
        shim.now_ms += 61_001
    members = shim.rows[b"{gw:main}:1:s:s"]
    assert isinstance(members, dict)
    assert len(members) <= 2


def test_a_window_ahead_of_the_store_is_refused_before_anything_is_written(shim: LuaShim) -> None:
    calls = Calls(SCRIPTS)
    ahead = window(100, START_MS + 60_001, START_MS + 90_000)
    for call in (
        first_take(calls, "a", Amount("r", TPM, 1), Amount("w", ahead, 1)),
        calls.settle("a", [Amount("w", ahead, 1)]),
        calls.lease("n", 1, "w", ahead, want=1, least=1, unused=0, lease_ms=1),
    ):
        with pytest.raises(ScriptError, match=r"window_ahead: .*set the clocks"):
            shim.run(call)
    assert shim.rows == {}
    near = window(100, START_MS + 60_000, START_MS + 90_000)
    assert shim.run(first_take(calls, "a", Amount("w", near, 1))) == b"[1,-1,0,[99]]"


def test_a_bucket_that_stands_twice_is_a_defect_told_before_anything_is_written(shim: LuaShim) -> None:
    calls = Calls(SCRIPTS)
    twice = [Amount("r", TPM, 1), Amount("q", TPM, 1), Amount("r", TPM, 2)]
    for call in (first_take(calls, "a", *twice), calls.settle("a", twice), calls.peek(twice)):
        with pytest.raises(ScriptError, match=r"twice: \{gw:main\}:1:r:r"):
            shim.run(call)
    assert shim.rows == {}


def test_a_store_that_does_not_know_the_time_is_refused(shim: LuaShim) -> None:
    shim.now_ms = 0
    with pytest.raises(ScriptError, match="store_clock: "):
        shim.run(Calls(SCRIPTS).peek([Amount("r", TPM, 1)]))


# --- the same numbers as the model -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [51, 54])
def test_scripts_agree_with_the_model(version: int) -> None:
    done = sum(play(sequence(seed), [LimitModel(), lua_engine(version)]) for seed in range(60))
    assert done == 60 * 60


@pytest.mark.parametrize("version", [51, 54])
def test_scripts_agree_with_the_model_while_the_clock_steps_back(version: int) -> None:
    for seed in range(40):
        play(sequence(seed, backwards=True), [LimitModel(), lua_engine(version, expires=False)])


def test_a_real_store_agrees_with_the_model(store: StoreConnection) -> None:
    for seed in range(30):
        play(sequence(seed, backwards=True), [LimitModel(), store_engine(store, f"agree-{seed}")])


# --- a real store's own clock and rules ------------------------------------------------------------------------------


@pytest.fixture
def run(store: StoreConnection) -> Callable[[bytes], bytes]:
    for script in SCRIPTS.values():
        assert store.send(script.load) == script.sha

    def run(call: bytes) -> bytes:
        answer = store.send(call)
        assert isinstance(answer, bytes)
        return answer

    return run


def test_a_store_counts_by_its_own_clock(store: StoreConnection, run: Callable[[bytes], bytes]) -> None:
    calls = Calls(SCRIPTS, "own-clock")
    slow = rate(1_000, 1, 86_400_000)
    assert run(first_take(calls, "a", Amount("r", slow, 1_000), Amount("s", slots(1), 1))) == b"[1,-1,0,[0,0]]"
    refused = reserved(run(first_take(calls, "b", Amount("r", slow, 1))))
    assert (refused.outcome, refused.binding) == (Outcome.REFUSED, 0)
    assert 86_400_000 - 60_000 < refused.wait_ms <= 86_400_000
    time = store.ask("TIME")
    assert isinstance(time, list)
    row = store.ask("GET", "{gw:own-clock}:1:r:r")
    assert isinstance(row, bytes)
    assert 0 <= int(time[0]) * 1_000 + 999 - int(row.split()[2]) < 60_000
    assert run(calls.settle("a", [Amount("r", slow, 400), Amount("s", slots(1), 1)])) == b"[1,[600,1]]"


def test_everything_in_a_store_has_an_end(store: StoreConnection, run: Callable[[bytes], bytes]) -> None:
    calls = Calls(SCRIPTS, "ends")
    run(first_take(calls, "a", Amount("r", TPM, 1_000), Amount("s", slots(1), 1)))
    run(calls.settle("b", [Amount("r", TPM, 1_000)]))
    run(calls.lease("n", 1, "r", TPM, want=5, least=1, unused=0, lease_ms=1_000))
    keys = store.ask("KEYS", "{gw:ends}*")
    assert isinstance(keys, list)
    assert len(keys) == 5
    for key in keys:
        left_ms = store.ask("PTTL", key)
        assert isinstance(left_ms, int)
        assert left_ms > 1_000, key


def test_a_store_without_memory_charges_nothing(store: StoreConnection, run: Callable[[bytes], bytes]) -> None:
    calls = Calls(SCRIPTS, "full")
    run(first_take(calls, "a", Amount("r", TPM, 1_000)))
    before = store.ask("CONFIG", "GET", "maxmemory")
    assert isinstance(before, list)
    store.ask("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(ReplyError, match="OOM"):
            run(first_take(calls, "b", Amount("q", TPM, 1_000), Amount("s", slots(3), 1)))
    finally:
        store.ask("CONFIG", "SET", "maxmemory", before[1])
    assert run(calls.peek([Amount("q", TPM, 5_000)])) == b"[[5000,0]]"
    assert run(calls.settle("b", [Amount("q", TPM, 0)])).startswith(b"[0,")


def test_calls_are_what_a_client_sends() -> None:
    (words,) = Parser().feed(Calls(SCRIPTS).settle("a", [Amount("r", TPM, 5)]))
    assert words == [
        b"EVALSHA",
        SCRIPTS["settle"].sha,
        b"2",
        b"{gw:main}:1:h:a",
        b"{gw:main}:1:r:r",
        b"86400000",
        b"r0 5000 1000 1000 5",
    ]
