"""A request's way through the engine and back: admitted, refused, settled, renewed, and without an engine."""

import asyncio
import errno
from collections.abc import Awaitable
from typing import Any

import pytest

from gateway.config.limits import Rule
from gateway.errors import GatewayError, InternalError, LimitsUnavailable, NeverFits, RateLimited
from gateway.limiter.engine import Amount, Outcome, Reason, Reserved
from gateway.limiter.hold import State
from gateway.limiter.limiter import LEASE_MS, Engines
from gateway.limiter.mutex import MutexBusy, MutexLost
from gateway.limiter.reservation import Origin
from gateway.limiter.scripts import MAX_RENEWALS
from gateway.limiter.table import TableEngine
from gateway.limiter.use import NOTHING, UNREAD, Estimate, use
from tests.fakes.limit_table import Moment, memory, table
from tests.fakes.limits import START_MS, FakeEngine, Setting, SliceEngine, away, estimate, limits_of, run

RPM = Rule(name="rpm", per=("key",), requests=2, every="minute")
TPM = Rule(name="tpm", per=("team",), tokens=1_000, every="minute")
SLOTS = Rule(name="slots", per=("key",), in_flight=2)
BUDGET = Rule(name="budget", per=("org",), usd=1, every="hour", alerts=(70, 90))
AT = Rule(name="at", per=("provider",), requests=1, every="minute")
LIMITS = limits_of(RPM, TPM, SLOTS, BUDGET)
DAY_MS = 86_400_000


def said(rule: Rule, **changes: Any) -> Rule:
    return Rule(**{name: getattr(rule, name) for name in rule.__struct_fields__} | changes)


def full(name: str) -> int:
    return {"rpm": 2_000, "tpm": 1_000_000, "slots": 2, "budget": 1_000_000}[name]


def levels(setting: Setting) -> list[int]:
    return [setting.level(LIMITS, name) for name in ("rpm", "tpm", "slots", "budget")]


# --- admitted and settled -------------------------------------------------------------------------------------------


def test_all_is_taken_and_what_was_not_used_comes_back() -> None:
    setting = Setting()
    hold = run(setting.limiter.reserve(LIMITS, "h", estimate(100, 500, 40_000)))
    assert hold.levels == (1_000, 400_000, 1, 960_000)
    assert (hold.origin, hold.first, setting.engine.named("reserve")[0][2]) == (Origin.TABLE, 0, 7)
    assert setting.limiter.open == {"h": hold}
    hold.settle(use(90, 10, 3_000))
    assert levels(setting) == [1_000, 900_000, 2, 997_000]
    assert setting.limiter.open == {}


def test_overuse_is_debt_that_the_next_request_waits_out() -> None:
    setting = Setting()
    run(setting.limiter.reserve(LIMITS, "h", estimate(100, 500))).settle(use(100, 1_900))
    with pytest.raises(RateLimited) as caught:
        run(setting.limiter.reserve(LIMITS, "i", estimate(100)))
    assert (caught.value.rule, caught.value.retry_after_ms) == ("tpm", 66_000)


def test_a_refusal_has_no_effect_and_names_limit_wait_and_levels() -> None:
    setting = Setting()
    for name in ("h1", "h2"):
        run(setting.limiter.reserve(LIMITS, name, estimate(10)))
    before = levels(setting)
    with pytest.raises(RateLimited) as caught:
        run(setting.limiter.reserve(LIMITS, "h3", estimate(10)))
    error = caught.value
    assert (error.rule, error.retry_after_ms, error.retry_after_s) == ("rpm", 30_000, 30)
    assert error.levels == (0, 980_000, 0, 1_000_000)
    assert error.header_lines("openai").startswith(
        b"x-ratelimit-limit-requests: 2\r\nx-ratelimit-remaining-requests: 0"
    )
    assert error.header_lines("anthropic").startswith(b"anthropic-ratelimit-requests-limit: 2\r\n")
    assert levels(setting) == before
    assert setting.limiter.refused == {"rpm": 1}
    assert len(setting.limiter.open) == 2


def test_a_prompt_that_never_fits_does_not_reach_the_engine() -> None:
    setting = Setting()
    with pytest.raises(NeverFits, match="never allows more than 1000"):
        run(setting.limiter.reserve(LIMITS, "h", estimate(1_001)))
    assert setting.engine.calls == []
    assert setting.limiter.refused == {"tpm": 1}


def test_a_capacity_below_one_request_never_fits() -> None:
    limits = limits_of(said(RPM, capacity=0.5))
    with pytest.raises(NeverFits):
        run(Setting().limiter.reserve(limits, "h", estimate(1)))


def test_a_cold_start_with_an_unbounded_answer_is_admitted() -> None:
    setting = Setting()
    hold = run(setting.limiter.reserve(LIMITS, "h", estimate(100, 128_000)))
    assert hold.levels[1] == 0
    hold.settle(use(100, 20))
    assert setting.level(LIMITS, "tpm") == 880_000


def test_a_request_that_cannot_be_read_is_stopped_by_debt_alone() -> None:
    setting = Setting()
    run(setting.limiter.reserve(LIMITS, "h", UNREAD)).settle(use(0, 5_000))
    with pytest.raises(RateLimited) as caught:
        run(setting.limiter.reserve(LIMITS, "i", UNREAD))
    assert caught.value.rule == "tpm"


def test_a_shadow_limit_counts_and_reports_and_never_refuses() -> None:
    setting, limits = Setting(), limits_of(said(RPM, shadow=True))
    for number in range(3):
        run(setting.limiter.reserve(limits, f"h{number}", estimate(1)))
    assert setting.level(limits, "rpm") == -1_000
    assert (setting.limiter.shadowed, setting.limiter.refused) == ({"rpm": 1}, {})


def test_the_window_follows_the_calendar() -> None:
    setting, limits = Setting(), limits_of(BUDGET)
    hold = run(setting.limiter.reserve(limits, "h", estimate(1, 0, 900_000)))
    setting.engine.now_ms += 3_600_000
    assert run(setting.limiter.reserve(limits, "i", estimate(1, 0, 900_000))).levels == (100_000,)
    hold.settle(use(1, 0, 100))
    assert setting.level(limits, "budget") == 100_000  # what belongs to the hour before is no refund of this one


def test_end_users_count_apart() -> None:
    setting, limits = Setting(), limits_of(said(RPM, per=("key", "end_user"), requests=1))
    for user in ("a", "b"):
        run(setting.limiter.reserve(limits, user, estimate(1), end_user=user))
    with pytest.raises(RateLimited):
        run(setting.limiter.reserve(limits, "c", estimate(1), end_user="a"))


@pytest.mark.parametrize("outcome", [Outcome.SETTLED, Outcome.EXPIRED])
def test_an_id_that_is_used_twice_is_our_defect(outcome: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting()
    monkeypatch.setattr(setting.engine.model, "reserve", lambda *_, **__: Reserved(outcome))
    with pytest.raises(InternalError):
        run(setting.limiter.reserve(LIMITS, "h", estimate(1)))


def test_a_full_table_is_ours_to_answer_for(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting()
    monkeypatch.setattr(setting.engine.model, "reserve", lambda *_, **__: Reserved(Outcome.NO_ROOM))
    with pytest.raises(LimitsUnavailable):
        run(setting.limiter.reserve(LIMITS, "h", estimate(1)))
    assert setting.limiter.unavailable == 1


def test_a_full_table_refuses_nobody_where_the_config_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uncounted while it is under way, and charged in the end."""
    setting = Setting()
    setting.limiter = setting.of(Engines(setting.engine, admit_full=True))
    with monkeypatch.context() as patched:
        full = Reserved(Outcome.NO_ROOM, levels=(2_000, 1_000_000, 2, 1_000_000))
        patched.setattr(setting.engine.model, "reserve", lambda *_, **__: full)
        hold = run(setting.limiter.reserve(LIMITS, "h", estimate(10)))
    assert (hold.origin, hold.levels, setting.limiter.degraded) == (Origin.OPEN, full.levels, 1)
    assert setting.limiter.open == {"h": hold}
    hold.settle(use(90, 10))
    assert levels(setting) == [1_000, 900_000, 2, 1_000_000]


# --- targets and their providers ------------------------------------------------------------------------------------


def test_a_provider_whose_own_limit_refuses_is_skipped() -> None:
    setting, limits = Setting(), limits_of(TPM, AT)
    firsts = [
        run(setting.limiter.reserve(limits, f"h{number}", estimate(1), providers=("p1", "p2"))).first
        for number in range(2)
    ]
    assert firsts == [0, 1]
    with pytest.raises(RateLimited) as caught:
        run(setting.limiter.reserve(limits, "h3", estimate(1), providers=("p1", "p2")))
    assert caught.value.rule == "at"
    assert setting.level(limits, "tpm") == 998_000


def test_a_limit_of_the_request_itself_is_not_asked_of_every_provider() -> None:
    setting, limits = Setting(), limits_of(said(RPM, requests=1), said(AT, requests=9))
    run(setting.limiter.reserve(limits, "h", estimate(1), providers=("p1", "p2")))
    with pytest.raises(RateLimited):
        run(setting.limiter.reserve(limits, "i", estimate(1), providers=("p1", "p2")))
    assert len(setting.engine.named("reserve")) == 2


def test_the_next_attempt_moves_to_the_buckets_of_its_provider() -> None:
    setting, limits = Setting(), limits_of(TPM, AT)

    async def story() -> None:
        hold = await setting.limiter.reserve(limits, "h", estimate(1), providers=("p1", "p2"))
        assert await hold.extend("p2")
        assert setting.level(limits, "at", provider="p1") == 1_000
        assert setting.level(limits, "at", provider="p2") == 0
        hold.settle(use(1, 1))

    run(story())
    assert setting.level(limits, "tpm") == 998_000
    assert setting.level(limits, "at", provider="p2") == 0


def test_an_attempt_in_the_next_window_leaves_a_budget_charged_in_its_own() -> None:
    setting, limits = Setting(), limits_of(Rule(name="budget", usd=10, every="day"), AT)
    midnight_ms = (START_MS // DAY_MS + 1) * DAY_MS
    at = f"budget|window={midnight_ms - DAY_MS}-{midnight_ms}"

    async def story() -> None:
        wanted = Estimate(use(1, 0, 500), use(1, 0, 500))
        hold = await setting.limiter.reserve(limits, "h", wanted, providers=("p1", "p2"))
        setting.engine.now_ms = midnight_ms + 1
        assert await hold.extend("p2")
        hold.settle(use(1, 0, 300))
        assert (hold.amounts[at], hold.settled_amounts[at]) == (500, 300)
        assert [name for name in hold.settled_amounts if name.startswith("budget")] == [at]

    run(story())
    assert setting.level(limits, "budget", provider="p2") == 10_000_000


def test_an_attempt_after_the_lease_has_ended_renews_it() -> None:
    setting, limits = Setting(), limits_of(TPM, AT)

    async def story() -> bool:
        hold = await setting.limiter.reserve(limits, "h", estimate(1), providers=("p1",))
        setting.engine.now_ms += LEASE_MS + 1
        return await hold.extend("p2")

    assert run(story())
    assert setting.level(limits, "at", provider="p2") == 0


@pytest.mark.parametrize(("mode", "goes_on"), [("closed", False), ("open", True), ("share", True)])
def test_an_attempt_that_cannot_be_asked_about_follows_its_limits_mode(mode: str, *, goes_on: bool) -> None:
    setting, limits = Setting(), limits_of(TPM, said(AT, on_store_failure=mode))

    async def story() -> bool:
        hold = await setting.limiter.reserve(limits, "h", estimate(1), providers=("p1",))
        setting.engine.failure = away()
        return await hold.extend("p2")

    assert run(story()) is goes_on
    assert setting.limiter.degraded == 1


def test_a_full_table_keeps_no_request_from_its_next_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    setting, limits = Setting(), limits_of(TPM, AT)
    full = Reserved(Outcome.NO_ROOM, levels=(0, 0))
    monkeypatch.setattr(setting.engine.model, "reserve", lambda *_, **__: full)

    async def story() -> bool:
        hold = await setting.limiter.reserve(limits, "h", estimate(1), providers=("p1",))
        return await hold.extend("p2")

    with pytest.raises(LimitsUnavailable):
        run(story())
    setting.limiter = setting.of(Engines(setting.engine, admit_full=True))
    assert run(story())


# --- the cache of refusals ------------------------------------------------------------------------------------------


def cached(setting: Setting) -> None:
    setting.limiter = setting.of(Engines(setting.engine), setting.denials)


def test_a_refusal_is_repeated_without_the_engine_until_something_is_given_back() -> None:
    setting, limits = Setting(), limits_of(TPM)
    cached(setting)
    hold = run(setting.limiter.reserve(limits, "h", estimate(900)))
    for name, asked in (("i", 2), ("j", 2)):
        with pytest.raises(RateLimited) as caught:
            run(setting.limiter.reserve(limits, name, estimate(200)))
        assert (caught.value.rule, caught.value.retry_after_ms, caught.value.levels) == ("tpm", 6_000, (100_000,))
        assert len(setting.engine.named("reserve")) == asked
    assert setting.limiter.refused == {"tpm": 2}
    run(setting.limiter.reserve(limits, "k", estimate(100)))  # a cheaper one fits
    hold.settle(use(100, 0))
    run(setting.limiter.reserve(limits, "l", estimate(200)))


def test_who_does_not_know_what_is_left_asks_once_before_it_repeats_a_refusal() -> None:
    """Another worker has the refusal in memory, and the levels that its headers tell from the engine alone."""
    setting, here, there = Setting(), limits_of(TPM), limits_of(TPM)
    cached(setting)
    run(setting.limiter.reserve(here, "h", estimate(900)))
    for limits, name, asked in ((here, "i", 2), (there, "j", 3), (there, "k", 3)):
        with pytest.raises(RateLimited) as caught:
            run(setting.limiter.reserve(limits, name, estimate(200)))
        assert caught.value.levels == (100_000,)
        assert caught.value.header_lines("openai")
        assert len(setting.engine.named("reserve")) == asked


# --- without the engine ---------------------------------------------------------------------------------------------

FAILURES = [away(), away(Reason.LATE), away(Reason.LOST), away(Reason.REFUSED), MutexBusy("x"), MutexLost("x")]


def stored(*, nodes: int = 2) -> Setting:
    return Setting(local=True, nodes=nodes)


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
def test_one_closed_limit_refuses(failure: Exception) -> None:
    setting, limits = stored(), limits_of(TPM, said(RPM, on_store_failure="closed"))
    setting.engine.failure = failure
    with pytest.raises(LimitsUnavailable, match="rpm"):
        run(setting.limiter.reserve(limits, "h", estimate(1)))
    assert (setting.limiter.unavailable, setting.limiter.open) == (1, {})
    unknown = getattr(failure, "reason", None) in (Reason.LATE, Reason.LOST, Reason.REFUSED)
    given_back = [amount.amount for _, amounts in setting.engine.named("settle") for amount in amounts]
    assert given_back == ([0, 0] if unknown else [])


def test_a_closed_shadow_limit_refuses_nobody() -> None:
    setting, limits = stored(), limits_of(said(RPM, on_store_failure="closed", shadow=True))
    setting.engine.failure = away()
    assert run(setting.limiter.reserve(limits, "h", estimate(1))).origin is Origin.OPEN


def test_share_without_a_place_to_count_is_closed() -> None:
    setting = Setting()
    setting.engine.failure = MutexLost("x")
    with pytest.raises(LimitsUnavailable):
        run(setting.limiter.reserve(LIMITS, "h", estimate(1)))


def test_an_open_limit_admits_uncounted_and_the_settlement_is_told() -> None:
    setting, limits = stored(), limits_of(said(TPM, on_store_failure="open"))
    setting.engine.failure = away()
    hold = run(setting.limiter.reserve(limits, "h", estimate(5_000 - 4_500)))
    assert (hold.origin, setting.limiter.degraded) == (Origin.OPEN, 1)
    setting.engine.failure = None
    hold.settle(use(100, 50))
    assert setting.level(limits, "tpm") == 850_000  # the store is back: it learns all that was used
    assert setting.limiter.owed == {}


def test_this_nodes_part_of_a_shared_limit_is_counted_here() -> None:
    setting, limits = stored(), limits_of(TPM, said(RPM, on_store_failure="open"), SLOTS)
    setting.engine.failure = away()
    hold = run(setting.limiter.reserve(limits, "h", estimate(400)))
    assert (hold.origin, hold.levels) == (Origin.SHARE, (100_000, 2_000, 0))
    with pytest.raises(RateLimited) as caught:
        run(setting.limiter.reserve(limits, "i", estimate(100)))
    assert (caught.value.rule, caught.value.retry_after_ms) == ("slots", 1_000)
    assert setting.limiter.refused == {"slots": 1}
    setting.engine.failure = None
    hold.settle(use(300, 0))
    assert setting.local is not None
    (_, here), (_, there) = *setting.local.named("settle"), *setting.engine.named("settle")
    assert [(amount.bucket, amount.amount) for amount in here] == [
        ("tpm|team=acme/search", 300_000),
        ("slots|key=demo", 1),
    ]
    assert [amount.amount for amount in there] == [300_000, 1_000, 1]
    assert setting.level(limits, "tpm") == 700_000


def test_a_request_above_this_nodes_part_waits_for_the_store_which_may_have_room() -> None:
    setting, limits = stored(nodes=4), limits_of(TPM)
    setting.engine.failure = away()
    with pytest.raises(LimitsUnavailable) as caught:
        run(setting.limiter.reserve(limits, "h", estimate(300)))
    assert "part of the limit is too small" in caught.value.detail
    assert (setting.limiter.unavailable, setting.limiter.refused, setting.limiter.open) == (1, {}, {})


@pytest.mark.parametrize("failure", [MutexBusy("x"), None])
def test_a_place_to_count_that_fails_too_refuses(failure: Exception | None, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = stored()
    assert setting.local is not None
    setting.engine.failure = away(Reason.LATE)
    setting.local.failure = failure
    monkeypatch.setattr(setting.local.model, "reserve", lambda *_, **__: Reserved(Outcome.NO_ROOM))
    with pytest.raises(LimitsUnavailable):
        run(setting.limiter.reserve(limits_of(TPM), "h", estimate(1)))
    assert setting.limiter.unavailable == 1
    assert [name for name, _ in setting.engine.calls] == ["reserve", "settle"]


def test_a_share_that_there_is_no_room_for_refuses_nobody_where_the_config_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setting = stored()
    assert setting.local is not None
    setting.limiter = setting.of(Engines(setting.engine, Origin.STORE, setting.local, admit_full=True))
    setting.engine.failure = away()
    with monkeypatch.context() as patched:
        patched.setattr(setting.local.model, "reserve", lambda *_, **__: Reserved(Outcome.NO_ROOM, levels=(0,)))
        hold = run(setting.limiter.reserve(limits_of(TPM), "h", estimate(1)))
    assert (hold.origin, setting.limiter.degraded, setting.limiter.unavailable) == (Origin.SHARE, 1, 0)


@pytest.mark.parametrize("lost", [False, True])
def test_a_settlement_that_did_not_arrive_is_delivered_once(*, lost: bool) -> None:
    """Whether the store had it or not: what is repeated is harmless, what is not would be lost."""
    setting = Setting(FakeEngine(futures=True))

    async def story() -> None:
        hold = await setting.limiter.reserve(LIMITS, "h", estimate(100))
        if lost:
            setting.engine.lost = away(Reason.LOST)
        else:
            setting.engine.failure = away()
        hold.settle(use(1, 1, 5))
        await asyncio.sleep(0)
        assert hold.settled
        assert (setting.limiter.undelivered, setting.limiter.open, set(setting.limiter.owed)) == (1, {}, {"h"})
        await setting.limiter.renew()
        assert set(setting.limiter.owed) == {"h"}
        setting.engine.lost = setting.engine.failure = None
        for _ in range(2):
            await setting.limiter.renew()
            assert levels(setting) == [1_000, 998_000, 2, 999_995]

    run(story())
    assert setting.limiter.owed == {}


def test_settlements_wait_within_bounds(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("gateway.limiter.limiter.MAX_OWED", 1)
    setting = Setting()
    holds = [run(setting.limiter.reserve(LIMITS, name, estimate(1))) for name in ("h", "i")]
    setting.engine.failure = MutexBusy("x")
    for hold in holds:
        hold.settle(use(1, 1))
    assert (set(setting.limiter.owed), setting.limiter.undelivered) == ({"h"}, 2)
    assert "1 settlements wait for the store, or the node's limit table" in caplog.text


def test_what_a_lost_table_has_to_be_told_is_left_to_the_journal() -> None:
    """It is counted; but nothing waits for what cannot come back."""
    setting, made = Setting(), table(memory(), Moment(1))
    limiter = setting.of(Engines(TableEngine(made)))
    hold = run(limiter.reserve(LIMITS, "h", estimate(1)))
    made._try_lock(made._mutex_at)
    made._abandon()
    hold.settle(use(1, 1))
    assert (limiter.owed, limiter.undelivered, limiter.open) == ({}, 1, {})


@pytest.mark.parametrize("settling", [False, True])
def test_what_a_table_was_owed_is_given_up_when_it_is_lost(*, settling: bool) -> None:
    setting = Setting()
    holds = [run(setting.limiter.reserve(LIMITS, name, estimate(1))) for name in ("h", "i")]
    setting.engine.failure = MutexBusy("x")
    holds[0].settle(use(1, 1))
    run(setting.limiter.renew())
    assert set(setting.limiter.owed) == {"h"}
    setting.engine.failure = MutexLost("x")
    if settling:
        holds[1].settle(use(1, 1))
    else:
        run(setting.limiter.renew())
    assert (setting.limiter.owed, setting.limiter.undelivered) == ({}, 1 + settling)


def test_a_refusal_that_may_have_been_charged_is_given_back_in_the_end() -> None:
    """The store took it, its answer was late, and a closed limit refused the request."""
    setting, limits = Setting(FakeEngine(futures=True)), limits_of(said(BUDGET, on_store_failure="closed"))

    async def story() -> None:
        setting.engine.lost = away(Reason.LATE)
        with pytest.raises(LimitsUnavailable):
            await setting.limiter.reserve(limits, "h", estimate(1, 0, 700_000))
        setting.engine.lost, setting.engine.failure = None, away()
        await asyncio.sleep(0)
        setting.engine.failure = None
        await setting.limiter.renew()

    run(story())
    assert setting.level(limits, "budget") == 1_000_000


class Silent(FakeEngine):
    """A store that does what it is asked, and whose answer does not come."""

    def __init__(self, real: FakeEngine) -> None:
        super().__init__(futures=True)
        self.model = real.model

    def reserve(self, *asked: Any, **said: Any) -> Awaitable[Reserved]:
        super().reserve(*asked, **said)
        return asyncio.get_running_loop().create_future()


def test_a_caller_who_leaves_while_the_store_is_asked_keeps_nothing() -> None:
    setting = Setting(FakeEngine(futures=True))

    async def story() -> None:
        limiter = setting.of(Engines(Silent(setting.engine), Origin.STORE))
        asked = asyncio.ensure_future(limiter.reserve(LIMITS, "h", estimate(100)))
        await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert limiter.open == {}

    run(story())
    assert levels(setting) == [full(name) for name in ("rpm", "tpm", "slots", "budget")]


# --- leases ---------------------------------------------------------------------------------------------------------


def test_holds_are_renewed_from_the_second_look_on_until_they_are_settled() -> None:
    setting = Setting()
    hold = run(setting.limiter.reserve(LIMITS, "h", estimate(1)))
    run(setting.limiter.renew())
    assert setting.engine.named("renew") == []
    for _ in range(4):
        setting.engine.now_ms += LEASE_MS - 1
        run(setting.limiter.renew())
    assert setting.level(LIMITS, "slots") == 1
    ((renewal,),) = setting.engine.named("renew")[:1]
    assert (renewal.hold, renewal.slots) == ("h", ("slots|key=demo",))
    assert setting.engine.model._hold("h", setting.engine.now_ms).state is State.OPEN
    hold.settle(NOTHING)
    run(setting.limiter.renew())
    assert len(setting.engine.named("renew")) == 4


def test_what_is_owed_waits_for_the_table_to_be_there_again() -> None:
    setting = Setting()
    hold = run(setting.limiter.reserve(LIMITS, "h", estimate(1)))
    setting.engine.failure = MutexBusy("x")
    hold.settle(use(1, 1))
    run(setting.limiter.renew())
    assert set(setting.limiter.owed) == {"h"}
    setting.engine.failure = None
    run(setting.limiter.renew())
    assert (setting.limiter.owed, setting.level(LIMITS, "tpm")) == ({}, 998_000)


def test_a_settlement_that_found_the_table_held_is_delivered_later(monkeypatch: pytest.MonkeyPatch) -> None:
    setting, made = Setting(), table(memory(), Moment(1))
    limiter = setting.of(Engines(TableEngine(made)))
    hold = run(limiter.reserve(LIMITS, "h", estimate(100)))

    def late(*_: object) -> None:
        raise MutexBusy("held by process 5")

    with monkeypatch.context() as patch:
        patch.setattr(made, "_try_lock", lambda _: errno.EBUSY)
        patch.setattr(made, "_late", late)
        hold.settle(use(1, 1))
        with pytest.raises(LimitsUnavailable) as caught:
            run(limiter.reserve(limits_of(RPM, on_store_failure="closed"), "i", estimate(1)))
        assert caught.value.detail == "held by process 5"
        run(limiter.renew())
        assert (set(limiter.owed), limiter.undelivered) == ({"h"}, 1)
    run(limiter.renew())
    line = LIMITS.lines(setting.engine.now_ms).lines[1]
    assert (limiter.owed, made.peek([Amount(line.bucket, line.spec, 0)])[0].level) == ({}, 998_000)


def test_many_holds_are_renewed_some_at_a_time() -> None:
    setting, limits = Setting(), limits_of(said(RPM, requests=1_000))
    for number in range(MAX_RENEWALS + 1):
        run(setting.limiter.reserve(limits, f"h{number}", estimate(1)))
    run(setting.limiter.renew())
    run(setting.limiter.renew())
    assert [len(renewals) for renewals in setting.engine.named("renew")] == [MAX_RENEWALS, 1]


def test_a_hold_of_this_nodes_part_is_renewed_here_while_the_store_is_away() -> None:
    setting, limits = stored(), limits_of(SLOTS)
    setting.engine.failure = away()
    run(setting.limiter.reserve(limits, "h", estimate(1)))
    run(setting.limiter.renew())
    run(setting.limiter.renew())
    assert setting.local is not None
    assert [len(renewals) for renewals in setting.local.named("renew")] == [1]


def test_keeping_renews_every_third_of_a_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting()
    slept: list[float] = []

    async def sleep(delay_s: float) -> None:
        slept.append(delay_s)
        if len(slept) > 5:
            raise asyncio.CancelledError

    run(setting.limiter.reserve(LIMITS, "h", estimate(1)))
    monkeypatch.setattr("gateway.limiter.limiter.asyncio.sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        run(setting.limiter.keep())
    assert slept[0] == LEASE_MS / 3000
    assert setting.engine.named("renew")


def test_errors_are_the_callers_or_ours_never_bare() -> None:
    for failure in FAILURES:
        setting = Setting()
        setting.engine.failure = failure
        with pytest.raises(GatewayError):
            run(setting.limiter.reserve(LIMITS, "h", estimate(1)))


# --- slices ---------------------------------------------------------------------------------------------------------


def test_a_hold_that_is_counted_in_slices_says_in_whose() -> None:
    setting = Setting(SliceEngine())
    hold = run(setting.limiter.reserve(LIMITS, "h", estimate(100)))
    assert (hold.origin, hold.mark) == (Origin.SLICE, "")
    hold.settle(use(90, 10))
    assert hold.mark == "slice:abc"
