"""When a run says nothing, and whether a goal is met: rules as rows."""

import pytest

from bench.speed.disturbance import Disturbance, Thrown
from bench.speed.memory import MemoryResult, Moment
from bench.speed.sections import Sample
from bench.speed.start import FRESH, USED, Start
from bench.speed.verdict import (
    Goal,
    Range,
    Status,
    cost_ratio,
    memory_goals,
    paired,
    rate_ratio,
    speed_goals,
    start_goals,
    tls_goals,
    void_reasons,
    workers_goals,
)
from tests.unit.bench_speed.samples import repeats, sample


@pytest.mark.parametrize(
    ("nginx", "direct", "void"),
    [
        ([100, 100, 100], [150, 150, 150], False),  # exactly at the limit
        ([96, 100, 105], [160, 160, 160], False),  # within 9 %
        ([94, 100, 105], [160, 160, 160], True),  # 11 % apart
        ([100, 100, 100], [149, 149, 149], True),  # the upstream or the generator would be measured
        ([100, 100, 100], [], False),  # nothing to compare with
        ([], [], False),
    ],
)
def test_plain_requests_are_void_when_the_yardstick_moves(
    nginx: list[float], direct: list[float], *, void: bool
) -> None:
    samples = [*repeats("json", "nginx", nginx), *repeats("json", "direct", direct)]
    assert ("json" in void_reasons(samples)) is void


@pytest.mark.parametrize(("others", "void"), [([0.0, 0.04, 0.5], False), ([0.06, 0.06, 0.06], True)])
@pytest.mark.parametrize(("measured", "section"), [("json", "json"), ("sse-paced", "sse"), ("latency", "latency")])
def test_a_target_that_shares_its_core_is_void(measured: str, section: str, others: list[float], *, void: bool) -> None:
    samples = [sample(measured, "gateway", others=share, repeat=n) for n, share in enumerate(others)]
    assert (section in void_reasons(samples)) is void


def test_both_reasons_are_said() -> None:
    samples = [*repeats("json", "nginx", [80, 100, 120]), *repeats("json", "direct", [100, 100, 100])]
    assert len(void_reasons(samples)["json"]) == 2


@pytest.mark.parametrize(("costs", "void"), [((9.6, 10, 10.4), False), ((9, 10, 11), True)])
def test_streams_are_void_when_nginx_costs_differ(costs: tuple[float, ...], *, void: bool) -> None:
    for section, measured in (("sse", "sse-paced"), ("sse-long", "sse-long")):
        samples = [sample(measured, "nginx", cpu_us=cost, repeat=n) for n, cost in enumerate(costs)]
        assert void_reasons(samples).keys() == ({section} if void else set())


@pytest.mark.parametrize(
    ("rps", "p99_ms", "void"),
    [
        (1000, 0.2, False),
        (985, 0.2, False),
        (970, 0.2, True),  # the generator did not keep its schedule
        (1000, 1.5, True),  # and what is added cannot be seen above this
    ],
)
def test_latency_is_void_when_direct_is_already_slow(rps: float, p99_ms: float, *, void: bool) -> None:
    samples = repeats("latency", "direct", [rps] * 3, latency_ms=p99_ms)
    assert ("latency" in void_reasons(samples, asked_rate=1000)) is void


def test_figures_are_compared_within_the_same_repeat() -> None:
    # Both halve in the second repeat: the ratio does not move.
    ours, nginx = repeats("json", "gateway", [50, 25]), repeats("json", "nginx", [100, 50])
    ratio = paired([*nginx, *reversed(ours)], "json", ("gateway", "nginx"), lambda a, b: a.load.rps / b.load.rps)
    assert ratio == Range(0.5, 0.5, 0.5)


def full_run(*, rate: float, cpu_us: float, latency_ms: float, long_us: float = 13) -> list[Sample]:
    return [
        *repeats("json", "nginx", [100] * 3),
        *repeats("json", "direct", [200] * 3),
        *repeats("json", "gateway", [rate] * 3),
        *repeats("sse-paced", "nginx", [100] * 3, cpu_us=10),
        *repeats("sse-paced", "gateway", [100] * 3, cpu_us=cpu_us),
        *repeats("sse-long", "nginx", [100] * 3, cpu_us=10),
        *repeats("sse-long", "gateway", [100] * 3, cpu_us=long_us),
        *repeats("latency", "direct", [100] * 3, latency_ms=0.1),
        *repeats("latency", "gateway", [100] * 3, latency_ms=latency_ms),
    ]


@pytest.mark.parametrize(
    ("rate", "cpu_us", "long_us", "latency_ms", "met"),
    [
        (40, 13, 13, 1.0, (True, True, True, True)),
        (39, 13, 13, 1.0, (False, True, True, True)),
        (40, 13.2, 13, 1.0, (True, False, True, True)),
        (40, 13, 13.2, 1.0, (True, True, False, True)),
        (40, 13, 13, 1.2, (True, True, True, False)),
    ],
)
def test_each_goal_of_speed_stands_by_itself(
    rate: float, cpu_us: float, long_us: float, latency_ms: float, met: tuple[bool, ...]
) -> None:
    samples = full_run(rate=rate, cpu_us=cpu_us, long_us=long_us, latency_ms=latency_ms)
    goals = speed_goals(samples, "gateway", voided=())
    assert tuple(goal.status is Status.MET for goal in goals) == met


def test_a_void_section_says_neither_met_nor_missed() -> None:
    goals = speed_goals(full_run(rate=90, cpu_us=99, latency_ms=0.1), "gateway", voided={"json", "sse"})
    assert [goal.status for goal in goals] == [Status.VOID, Status.VOID, Status.MET, Status.MET]


def test_nothing_measured_is_neither() -> None:
    assert {goal.status for goal in speed_goals([], "gateway", voided=())} == {Status.NOT_MEASURED}
    assert {goal.status for goal in memory_goals(None)} == {Status.NOT_MEASURED}


def test_wrong_answers_fail_a_goal_however_fast() -> None:
    samples = [*full_run(rate=90, cpu_us=9, latency_ms=0.1), sample("json", "gateway", rps=90, repeat=3, errors=1)]
    plain, paced, _, _ = speed_goals(samples, "gateway", voided=())
    assert (plain.status, paced.status) == (Status.MISSED, Status.MET)


@pytest.mark.parametrize(("low", "high", "close"), [(0.38, 0.45, True), (0.41, 0.45, False)])
def test_a_limit_within_the_range_is_close(low: float, high: float, *, close: bool) -> None:
    assert Goal("rate", 0.4, "× nginx", Range(0.42, low, high), floor=True).close is close


def test_goals_of_memory() -> None:
    moments = [
        Moment("1,000 connections", 90 * 1024, 2000),
        Moment("before streams", 80_000, 50),
        Moment("streams open", 80_000 + 31_000, 2050),
    ]
    result = MemoryResult("gateway", wanted_streams=1000, streams=1000, moments=moments)
    assert [goal.status for goal in memory_goals(result)] == [Status.MET, Status.MISSED]
    result.errors["reset"] = 1
    assert {goal.status for goal in memory_goals(result)} == {Status.MISSED}


def test_tls_voids_nothing_since_its_goal_is_of_memory() -> None:
    samples = [sample("tls", "nginx", cpu_us=cost, others=0.5, repeat=n) for n, cost in enumerate((20, 30, 40))]
    assert void_reasons(samples) == {}


@pytest.mark.parametrize(("kb", "wrong", "status"), [(100, 0, "met"), (101, 0, "missed"), (90, 1, "missed")])
def test_the_goal_of_tls_is_what_a_stream_takes(kb: int, wrong: int, status: str) -> None:
    moments = [Moment("before streams", 80_000, 50), Moment("streams open", 80_000 + 10 * kb, 70)]
    (goal,) = tls_goals(MemoryResult("gateway", 10, 10, moments, {"reset": wrong} if wrong else {}))
    assert goal.status is Status(status)
    assert tls_goals(None)[0].status is Status.NOT_MEASURED


@pytest.mark.parametrize(
    ("limited", "unlimited", "met"),
    [
        (36, 40, (True, True)),  # exactly 0.9 of it
        (35, 40, (True, False)),
        (33, 36, (True, True)),
        (32, 33, (False, True)),
    ],
)
def test_limits_have_a_goal_of_their_own(limited: float, unlimited: float, met: tuple[bool, ...]) -> None:
    samples = [
        *repeats("json", "nginx", [100] * 3),
        *repeats("json", "gateway", [unlimited] * 3),
        *repeats("json", "limited", [limited] * 3),
    ]
    plain, *_, beside = speed_goals(samples, "limited", voided=())
    assert tuple(goal.status is Status.MET for goal in (plain, beside)) == met
    assert beside.name == "plain requests, rate with four limits beside none"


def test_limits_beside_a_gateway_that_was_not_measured_say_nothing() -> None:
    samples = [*repeats("json", "nginx", [100] * 3), *repeats("json", "limited", [50] * 3)]
    *_, beside = speed_goals(samples, "limited", voided=())
    assert beside.status is Status.NOT_MEASURED


def test_what_did_nothing_is_no_yardstick_and_costs_nothing() -> None:
    none = sample("json", "nginx", rps=0)
    assert (rate_ratio(sample("json", "gateway"), none), cost_ratio(sample("json", "gateway"), none)) == (None, None)
    assert cost_ratio(sample("json", "litellm", rps=0), sample("json", "nginx")) is None
    assert paired([none, sample("json", "gateway")], "json", ("gateway", "nginx"), rate_ratio) is None


def begun(state: str, answered_s: float, others: float = 0.0, **errors: int) -> Start:
    return Start("gateway", state, 0, 0.5, answered_s, 0.4, {}, errors, Disturbance(others))


def test_a_start_has_a_goal_for_each_state_of_its_folder() -> None:
    starts = [begun(FRESH, 0.9), begun(FRESH, 1.0), begun(FRESH, 1.2), begun(USED, 1.01)]
    assert [goal.status for goal in start_goals(starts, (), "gateway", ())] == [Status.MET, Status.MISSED]
    assert {goal.status for goal in start_goals(starts, (), "gateway", ("start",))} == {Status.VOID}
    assert {goal.status for goal in start_goals((), (), "gateway", ())} == {Status.NOT_MEASURED}


def test_a_wrong_first_answer_fails_the_goal_also_where_it_was_thrown_away() -> None:
    right = [begun(FRESH, 0.5), begun(USED, 0.5)]
    wrong = [begun(FRESH, 0.5, reset=1), begun(USED, 0.5)]
    thrown = [Thrown("start", Disturbance(0.5), begun(USED, 0.5, reset=1).summary())]
    assert {goal.status for goal in start_goals(right, (), "gateway", ())} == {Status.MET}
    assert {goal.status for goal in start_goals(wrong, (), "gateway", ())} == {Status.MISSED}
    assert {goal.status for goal in start_goals(right, thrown, "gateway", ())} == {Status.MISSED}


@pytest.mark.parametrize(("two_us", "status"), [(110, "met"), (111, "missed")])
def test_a_second_worker_must_not_make_requests_dearer(two_us: float, status: str) -> None:
    samples = [
        *repeats("workers-1", "gateway", [50, 50], cpu_us=100),
        *repeats("workers-2", "gateway", [90, 90], cpu_us=two_us),
    ]
    (goal,) = workers_goals(samples, (), "gateway", ())
    assert goal.status is Status(status)
    assert workers_goals([], (), "gateway", ())[0].status is Status.NOT_MEASURED
    assert workers_goals(samples, (), "gateway", ("workers",))[0].status is Status.VOID


def test_sections_that_take_both_cores_are_void_where_others_had_either() -> None:
    busy = [sample("workers-2", "gateway", others=0.2, repeat=n) for n in range(3)]
    assert list(void_reasons(busy)) == ["workers"]
    assert list(void_reasons([], None, [begun(FRESH, 0.5, others=0.2)])) == ["start"]
    assert void_reasons([sample("workers-2", "gateway", others=0.1)], None, [begun(FRESH, 0.5, others=0.1)]) == {}
