"""What others took is what nobody of ours spent; what was disturbed is made again, within bounds, whatever it found."""

from dataclasses import dataclass

import pytest

from bench.speed import disturbance
from bench.speed.disturbance import MAX_TRIES, Again, Disturbance, Look, Thrown, Watch
from bench.speed.procfs import CoreTimes, Spent
from tests.unit.bench_speed.samples import again

SECOND = 1_000_000


def watched(cores: tuple[CoreTimes, CoreTimes], own: Spent, *, with_interrupts: bool = True) -> Disturbance:
    """What a watch finds when the cores and our processes did this within two seconds."""
    watch = Watch(0, 1, with_interrupts=with_interrupts)
    start = CoreTimes(5 * SECOND, 40, 7)
    moved = [
        CoreTimes(start.idle_us + core.idle_us, start.interrupts_us + core.interrupts_us, 7 + core.stolen_us)
        for core in cores
    ]
    watch._looks = [Look(10.0, (start, start), Spent({})), Look(12.0, (moved[0], moved[1]), own)]
    return watch.found()


def test_what_was_neither_idle_nor_ours_was_taken() -> None:
    cores = CoreTimes(SECOND, 0, 0), CoreTimes(SECOND // 2, 0, 0)
    found = watched(cores, Spent({1: (SECOND // 2, 0), 2: (SECOND, 1)}))
    assert (found.target_core, found.client_core, found.stolen) == pytest.approx((0.25, 0.25, 0))
    assert found.total == pytest.approx(0.5)


def test_what_the_hypervisor_kept_is_told_apart() -> None:
    found = watched((CoreTimes(SECOND, 0, SECOND), CoreTimes(2 * SECOND, 0, 0)), Spent({}))
    assert (found.taken, found.stolen, found.total) == pytest.approx((0, 0.5, 0.5))


@pytest.mark.parametrize(("with_interrupts", "taken"), [(True, 0.5), (False, 0.25)])
def test_interrupts_are_ours_only_where_they_are_not_in_our_processes_time(
    taken: float, *, with_interrupts: bool
) -> None:
    cores = CoreTimes(SECOND, SECOND // 2, 0), CoreTimes(2 * SECOND, 0, 0)
    assert watched(cores, Spent({}), with_interrupts=with_interrupts).taken == pytest.approx(taken)


def test_a_process_of_ours_that_changed_cores_takes_nothing() -> None:
    cores = CoreTimes(SECOND, 0, 0), CoreTimes(SECOND, 0, 0)
    found = watched(cores, Spent({1: (2 * SECOND, 1)}))  # a second on each, last seen on the second
    assert (found.target_core, found.client_core) == pytest.approx((0.5, -0.5))
    assert found.total == pytest.approx(0)


def test_the_machine_itself_can_be_watched() -> None:
    watch = disturbance.watching(0, 0)()
    watch.look()
    watch.look()
    assert watch.found().stolen >= 0


@dataclass(frozen=True)
class Found:
    """A measurement; nobody may look at `rps`."""

    disturbance: Disturbance
    rps: float

    def summary(self) -> dict[str, float]:
        return {"rps": self.rps}


def made(by: Again, *taken: float, length_s: float = 4.0) -> tuple[float, int]:
    """Which of the tries counts, when others took these shares, and how many there were; the first are the best."""
    tries: list[Found] = []

    def measure() -> Found:
        tries.append(Found(Disturbance(taken[len(tries)]), 1000.0 - len(tries)))
        return tries[-1]

    chosen = by.undisturbed("json", "json 1/5 nginx", measure, length_s)
    return chosen.disturbance.total, len(tries)


def test_what_was_not_disturbed_counts_at_once() -> None:
    quiet = again()
    assert made(quiet, disturbance.MAX_DISTURBANCE) == (disturbance.MAX_DISTURBANCE, 1)
    assert (quiet.thrown, quiet.spare_s) == ([], 100)


def test_the_disturbed_one_is_thrown_away_and_told_however_good_it_was() -> None:
    notes: list[str] = []
    twice = again(notes=notes)
    assert made(twice, 0.31, 0.01) == (0.01, 2)
    assert twice.thrown == [Thrown("json", Disturbance(0.31), {"rps": 1000.0})]
    assert notes == ["json 1/5 nginx: others took 31% of a core; made again when the machine is quiet"]
    assert twice.spare_s == 100 - disturbance.QUIET_LOOK_S - 4


def test_after_the_last_try_the_least_disturbed_counts() -> None:
    restless = again()
    assert made(restless, 0.3, 0.15, 0.2) == (0.15, MAX_TRIES)
    assert [one.disturbance.total for one in restless.thrown] == [0.3, 0.2]


def test_there_is_no_more_time_than_there_is_to_spare() -> None:
    assert made(again(spare_s=3.9), 0.3) == (0.3, 1)
    assert made(again(spare_s=4.0), 0.3, 0.2) == (0.2, 2)


def test_a_quiet_machine_is_waited_for() -> None:
    waiting = again([0.9, 0.9, 0.02])
    assert made(waiting, 0.5, 0.0) == (0.0, 2)
    assert waiting.spare_s == 100 - 3 * disturbance.QUIET_LOOK_S - 4


def test_on_a_machine_that_does_not_become_quiet_nothing_is_made_again() -> None:
    notes: list[str] = []
    never = again([0.9] * 1000, notes=notes)
    assert made(never, 0.5, 0.4) == (0.5, 1)
    assert never.thrown == []
    assert notes[-1] == "json 1/5 nginx: the machine did not become quiet"
    waited_s = disturbance.MAX_WAIT_S + disturbance.QUIET_LOOK_S
    assert never.spare_s == 100 - waited_s
    made(never, 0.5, 0.4)
    assert -disturbance.QUIET_LOOK_S <= never.spare_s <= 4  # with room for the one that was not made
    assert made(never, 0.5) == (0.5, 1)


def test_a_report_says_what_was_left_in_doubt() -> None:
    kept = [("json", Disturbance(0.01)), ("json", Disturbance(0.3)), ("sse", Disturbance(0.02))]
    (told,) = disturbance.report(kept, [])
    assert told.startswith(
        "1 of the 3 measurements count although others took more than 10% of a core, and could not be made"
    )
    assert told.endswith(": 1 of json (30%).")
    assert disturbance.report(kept[:1], []) == ["Beside each of the 1 measurements others took at most 1% of a core."]
    assert disturbance.report([], []) == []


def test_what_was_stolen_is_said() -> None:
    assert disturbance.told(Disturbance(0.1, 0.1, 0.07)) == "others took 20% of a core, and 7% were stolen"
