"""From a story to findings, numbers and the report; the processes are played."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench.limits import __main__ as limits
from bench.limits import proof
from bench.limits.evidence import Admitted, Broken, Look, Seen, Standing
from bench.limits.proof import Run, Stand, Story
from bench.limits.scenarios import BUDGET, BUDGET_RULE, BY_NAME, SCENARIOS, SLOTS, SLOTS_RULE, Scenario
from bench.load.judge import Finding
from bench.speed.launch import CannotRun

TABLE = BY_NAME["requests-table"]


def story(scenario: Scenario = TABLE, count: int = 700, tokens: int = 20) -> Story:
    moments = [10.0 * number / (count - 1) for number in range(count)]
    seen = Seen([Admitted(at, at, at, tokens) for at in moments], refused=10, last_refusal_sent_s=10.0)
    seen.refusals.add(2_000_000)
    return Story(scenario, seen, end_s=10.0, killed_s=4.0)


def standings(scenario: Scenario, *, level: float, used: float, taken: float = 0) -> dict[str, Standing]:
    return {
        scenario.rate_rule: Standing(scenario.capacity, level, at_s=11.0),
        SLOTS_RULE: Standing(SLOTS, SLOTS - taken, at_s=11.0),
        BUDGET_RULE: Standing(BUDGET, BUDGET - used, at_s=11.0),
    }


def broken(found: list[Finding]) -> list[str]:
    return [finding.what for finding in found if not finding.holds]


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({}, []),
        ({"level": 20}, ["level in the end"]),
        ({"taken": 1}, ["still in flight in the end"]),
        ({"used": 13_999}, ["tokens in the budget"]),
    ],
)
def test_buckets_must_stand_as_callers_were_told(given: dict[str, float], what: list[str]) -> None:
    told = standings(TABLE, **{"level": 10.0, "used": 700 * 20, **given})
    assert broken(proof.findings(story(), told, 0.5)) == what


def test_one_too_many_breaks_the_proof() -> None:
    told = standings(TABLE, level=9.0, used=701 * 20)
    assert "admitted at most" in broken(proof.findings(story(count=701), told, 0.5))


def test_where_something_is_killed_requests_may_break_off() -> None:
    killed = BY_NAME["worker-table"]
    happened = story(killed, count=300)
    happened.seen.broken = [Broken(4.0, 4.1)]
    told = standings(killed, level=10.0, used=300 * 20)
    assert not broken(proof.findings(happened, told, 3.0))
    happened.scenario = Scenario("calm", "the same, and nothing was killed", capacity=200)
    assert broken(proof.findings(happened, told, 3.0)) == ["requests that broke off"]


def test_of_slices_no_bucket_is_asked_and_their_rate_is_judged() -> None:
    leased = BY_NAME["nodes-slices"]
    assert not broken(proof.findings(story(leased, count=3_001), {}, 0.0))
    assert broken(proof.findings(story(leased, count=2_901), {}, 0.0)) == [
        "requests admitted a second, in the long run"
    ]
    assert "admitted at most" in broken(proof.findings(story(leased, count=3_301), {}, 0.0))


def test_tokens_are_judged_by_their_rate() -> None:
    fifth = BY_NAME["tokens-fifth-table"]
    happened = story(fifth, count=1_001, tokens=500)
    used = 1_001 * 500
    told = standings(fifth, level=50_000, used=used)  # full again, a second after the last
    assert not broken(proof.findings(happened, told, 0.5))
    happened.seen.admitted = happened.seen.admitted[::2]
    assert "tokens settled a second, in the long run" in broken(proof.findings(happened, told, 0.5))


def test_what_a_kill_did_is_told_in_seconds() -> None:
    happened = story()
    happened.looks = [Look(6.0, 20, 10)]
    pause, slots = proof.recovery(happened)
    assert pause.endswith("0.0 s")
    assert "taken 2.0 s after it" in slots


def test_numbers_say_what_is_not_usual_only_when_it_happened() -> None:
    seen = story().seen
    assert len(proof.numbers(seen, 10.0)) == 2
    seen.unavailable_s, seen.broken = [1.0], [Broken(1.0, 1.1)]
    assert proof.numbers(seen, 10.0)[2:] == [
        "1 were told that limits are unavailable (503)",
        "1 broke off, 0 connections were not accepted",
    ]


def test_the_report_opens_with_what_is_broken() -> None:
    good, bad = story(), story(BY_NAME["nodes"])
    good.findings = [Finding("a", "1", "1", holds=True)]
    bad.findings = [Finding("a", "2", "1", holds=False)]
    text = proof.markdown([good, bad], {"nodes-slices": "not here"}, {"machine": "this one"})
    assert "**Broken: nodes.**" in text
    assert "- nodes-slices was not run: not here" in text
    assert "**Every bound holds.**" in proof.markdown([good], {}, {})
    assert good.summary()["holds"] is True
    assert not story().holds


class Played:
    """A node and a store at once: keeps what was done to it."""

    port = 7

    def __init__(self, told: list[dict[str, Standing] | None]) -> None:
        self.done: list[str] = []
        self.told = told

    def standings(self) -> dict[str, Standing] | None:
        return self.told.pop(0) if len(self.told) > 1 else self.told[0]

    def start(self) -> float:
        self.done.append("start")
        return 0.5

    def kill(self) -> None:
        self.done.append("kill")

    def kill_worker(self) -> None:
        self.done.append("kill worker")


@pytest.mark.parametrize(
    ("name", "done"),
    [("worker-table", ["kill worker"]), ("node-store", ["kill", "start"]), ("store", ["kill", "start"])],
)
def test_what_is_killed_is_started_again_but_for_workers(
    name: str, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "STORE_GONE_S", 0.01)
    played = Played([standings(BY_NAME[name], level=0, used=0, taken=5)])
    stand = Stand([cast("Any", played)], cast("Any", played), cast("Any", None))
    run = Run(BY_NAME[name], stand, 1.0)
    hammer = SimpleNamespace(in_service={7}, reading=2)
    run._kill(cast("Any", hammer))
    assert played.done == done
    assert hammer.in_service == {7}
    assert run.story.killed_s > 0


def test_buckets_are_asked_until_no_slot_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    killed = BY_NAME["worker-table"]
    free = standings(killed, level=0, used=0)
    played = Played([None, standings(killed, level=0, used=0, taken=5), free])
    run = Run(killed, Stand([cast("Any", played)], None, cast("Any", None)), 1.0)
    assert run._settled()[0] is free
    monkeypatch.setattr(proof, "ASK_PATIENCE_S", 0.0)
    run._stand.nodes[0].told = [None]  # type: ignore[attr-defined] # played
    with pytest.raises(CannotRun, match="did not tell"):
        run._settled()


def test_a_request_asks_for_at_most_what_the_scenario_reserves() -> None:
    assert b'"max_tokens": 300' in proof.body(BY_NAME["tokens-triple-table"])


def test_what_this_gateway_cannot_do_is_left_out() -> None:
    assert [bool(proof.possible(scenario, ())) for scenario in SCENARIOS] == [s.slices for s in SCENARIOS]
    assert not any(proof.possible(scenario, ("slices",)) for scenario in SCENARIOS)


# ---- the command


def test_scenarios_are_chosen_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = limits.parser().parse_args(["proof", "--only", "nodes,store", "--seconds", "20"])
    assert chosen.only == ("nodes", "store")
    with pytest.raises(SystemExit):
        limits.parser().parse_args(["proof", "--only", "nods"])
    assert "unknown: nods; known: requests-table," in capsys.readouterr().err


@pytest.mark.parametrize("words", [["proof", "--seconds", "14"], ["cost", "--repeats", "0"], []])
def test_wrong_words_end_with_two(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        limits.main(words)
    assert ended.value.code == 2


def test_the_proof_is_written_and_its_status_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def prove(chosen: list[Scenario], *_: object) -> list[Story]:
        found = [story(scenario) for scenario in chosen]
        for each in found:
            each.findings = [Finding("a", "1", "1", holds=each.scenario.name != "nodes")]
        return found

    monkeypatch.setattr(proof, "prove", prove)
    assert limits.main(["proof", "--only", "requests-table", "--out", str(tmp_path / "a")]) == limits.HOLDS
    assert limits.main(["proof", "--only", "nodes", "--out", str(tmp_path / "b")]) == limits.MISSED
    assert "Every bound holds" in (tmp_path / "a" / "proof.md").read_text()
    assert (tmp_path / "b" / "proof.json").stat().st_size > 1_000
