"""The journal of a running gateway: what stands in it, and what is left of it whatever is killed or full."""

import itertools
import json
import os
import resource
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import pytest

from gateway.config.schema import Config
from gateway.control.database.handle import Database
from gateway.control.pace import Pace
from gateway.control.readers.usage import fold
from gateway.control.usage_fields import MEASURES
from gateway.control.usage_page import ask
from gateway.control.usage_question import parse
from gateway.journal import layout
from gateway.journal.read import Entry, entries
from gateway.journal.seal import Opener
from gateway.journal.search import Query
from gateway.journal.signing import public_keys
from gateway.journal.unfinished import unfinished
from gateway.journal.verify import verify
from gateway.record import Kind, Record
from tests.fakes.gateway_node import KEY, GatewayNode, running
from tests.fakes.patience import PATIENCE_S

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
QUIET: dict[str, Any] = {"log": {"requests": "none"}}
CLOCK_S = 4_000_000_000


def state_of(node: GatewayNode) -> Path:
    return node.directory / "state"


def lines(state_dir: Path) -> Iterator[Entry]:
    """Every line of every chain."""
    journal = layout.journal_of(state_dir)
    for chain in layout.chains(journal):
        yield from entries(journal, chain)


def exchanges(state_dir: Path) -> dict[str, dict[Kind, Record]]:
    """Decision and outcome of each exchange."""
    found: dict[str, dict[Kind, Record]] = {}
    for entry in lines(state_dir):
        if entry.record.exchange_id:
            kinds = found.setdefault(entry.record.exchange_id, {})
            assert entry.record.kind not in kinds, f"{entry.record.exchange_id} has two {entry.record.kind}"
            kinds[entry.record.kind] = entry.record
    return found


def check(state_dir: Path) -> None:
    """The journal verifies with the node's public key, and all of it is signed."""
    report = verify(layout.journal_of(state_dir), public_keys(layout.signing_of(state_dir)))
    assert report.ok, [str(finding) for finding in report.findings]
    assert report.verdict == "verified"
    assert report.unsigned == 0


def replayed(state_dir: Path) -> Counter[str]:
    """What a reader that begins anew counts, in all."""
    journal, total = layout.journal_of(state_dir), Counter[str]()
    opener = Opener(layout.sealing_of(state_dir))
    for amounts in fold(layout.node_id(journal), list(lines(state_dir)), opener.open, Pace()).values():
        total.update(dict(zip(MEASURES, amounts, strict=True)))
    return +total


def counted(state_dir: Path) -> Counter[str]:
    """What stands in the usage table, in all."""
    database = Database.of(Config(state_dir=str(state_dir)), read_only=True)
    told = ask(database, parse([("from", "2020-01-01"), ("by", "key")], CLOCK_S))
    database.close()
    return +Counter({name: value for name, value in told["total"].items() if isinstance(value, int)})


def caught_up(node: GatewayNode) -> None:
    """Wait until the usage reader has read everything there is."""

    def done() -> bool:
        told = node.admin("/v1/journal").json
        signed = all(not chain["unsigned_bytes"] for chain in told["chains"])
        return signed and bool(told["readers"]) and all(not reader["lag_records"] for reader in told["readers"])

    node.until(done, "the readers")
    node.until(done, "the readers, once more")


class Load:
    """Callers that go on through anything; `answered` holds the ids of whole answers.

    No two bodies are the same: one that two workers were reading when they were killed would be refused.
    """

    def __init__(self, node: GatewayNode, callers: int = 4) -> None:
        self.node = node
        self.answered: list[str] = []
        self._seeds = itertools.count()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(callers)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

    def serves(self, number: int) -> None:
        """Wait until so many more were answered."""
        wanted = len(self.answered) + number
        self.node.until(lambda: len(self.answered) >= wanted, f"{number} answers")

    def _call(self) -> None:
        while not self._over.is_set():
            try:
                answer = self.node.chat("sim-m+tokens=3", seed=next(self._seeds))
            except (OSError, AssertionError, ValueError):
                time.sleep(0.01)
                continue
            if answer.status == 200:
                self.answered.append(answer.header("x-request-id"))


# --- what stands in it ------------------------------------------------------------------------------------------------


def test_an_exchange_is_told_twice_and_can_be_matched_with_its_bodies() -> None:
    with running() as node:
        body = json.dumps({"model": "sim-m", "messages": [{"role": "user", "content": "hi"}], "user": "eve"}).encode()
        plain = node.post(CHAT, body)
        streamed = node.post(CHAT, body[:-1] + b',"stream":true}')
        refused = node.chat("nothing-like-it")
        nobody = node.post(CHAT, body, key="gw-nobody" + "0" * 37)
        assert [a.status for a in (plain, streamed, refused, nobody)] == [200, 200, 404, 401]
        state_dir = state_of(node)
        node.stop()
        check(state_dir)
        found, opener = exchanges(state_dir), Opener(layout.sealing_of(state_dir))
        for answer, sent in ((plain, body), (streamed, body[:-1] + b',"stream":true}')):
            decision = found[answer.header("x-request-id")][Kind.DECISION]
            outcome = found[answer.header("x-request-id")][Kind.OUTCOME]
            assert (decision.decision, outcome.decision, outcome.ending) == ("allow", "allow", "complete")
            assert decision.prompt_digest == opener.digest(decision.sealed_by, sent)
            assert outcome.answer_digest == opener.digest(outcome.sealed_by, answer.body)
            personal = opener.open(outcome)
            assert personal is not None
            assert (personal.user, personal.end_user, personal.client_ip) == ("ann", "eve", "127.0.0.1")
            assert outcome.usage is not None
        outcome = found[refused.header("x-request-id")][Kind.OUTCOME]
        assert Kind.DECISION not in found[refused.header("x-request-id")]
        assert (outcome.decision, outcome.error) == ("refuse", "model_not_found")
        assert nobody.header("x-request-id") not in found
        counts = [entry.record for entry in lines(state_dir) if entry.record.action == "refusals"]
        assert [(record.error, record.count) for record in counts] == [("invalid_api_key", 1)]
        everything = b"".join(entry.raw for entry in lines(state_dir))
        for secret in (b"hi", b"eve", b"127.0.0.1", b"python", KEY.encode()):
            assert b'"' + secret + b'"' not in everything


def test_usage_is_what_the_journal_says_while_it_runs_and_after_it_was_erased() -> None:
    with running(QUIET) as node:
        for model in ("sim-m", "sim-m", "renamed", "nothing-like-it"):
            node.chat(model)
        caught_up(node)
        state_dir = state_of(node)
        assert counted(state_dir) == replayed(state_dir)
        told = node.admin("/v1/usage?by=user,model").json
        assert {(row["user"], row["model"]): row["requests"] for row in told["rows"]} == {
            ("ann", "sim-m"): 2,
            ("ann", "renamed"): 1,
            ("ann", ""): 1,
        }
        port = f"admin.port={node.admin_port}"
        erased = node.command("journal", "erase", "--tenant", "acme", "--user", "ann", "--yes", "--set", port)
        assert erased.returncode == 0, erased.stderr
        caught_up(node)
        assert [row["user"] for row in node.admin("/v1/usage?by=user").json["rows"]] == [""]
        assert counted(state_dir) == replayed(state_dir)
        node.stop()
        check(state_dir)


# --- killed -----------------------------------------------------------------------------------------------------------


def test_workers_and_control_that_are_killed_leave_a_journal_that_is_whole() -> None:
    with running(QUIET, workers=2) as node:
        with Load(node) as load:
            for turn in range(6):
                load.serves(20)
                node.kill_child(node.until_workers(2)[-1])
                if turn % 2:
                    node.kill_child(node.control())
            node.until_workers(2)
        caught_up(node)
        state_dir = state_of(node)
        assert counted(state_dir) == replayed(state_dir)
        node.stop()
        check(state_dir)
        found = exchanges(state_dir)
        assert len(load.answered) > 100
        assert [name for name in load.answered if Kind.DECISION not in found.get(name, {})] == []
        unended = [name for name in load.answered if Kind.OUTCOME not in found[name]]
        assert len(unended) <= 6 * 4, "only what a killed worker was about to write"
        told = {entry.record.exchange_id for entry in unfinished(layout.journal_of(state_dir), Query())}
        assert told == {name for name, kinds in found.items() if Kind.DECISION in kinds and Kind.OUTCOME not in kinds}


def test_a_node_that_is_killed_whole_goes_on_where_it_was() -> None:
    with running(QUIET, workers=2) as node:
        answered: list[str] = []
        for _ in range(3):
            with Load(node) as load:
                load.serves(20)
                node.kill()
            answered += load.answered
            node.start()
        node.chat("sim-m")
        caught_up(node)
        state_dir = state_of(node)
        assert counted(state_dir) == replayed(state_dir)
        node.stop()
        check(state_dir)
        found = exchanges(state_dir)
        assert len(answered) > 50
        assert [name for name in answered if Kind.DECISION not in found.get(name, {})] == []
        nodes = {entry.record.node for entry in lines(state_dir) if entry.record.action == "segment"}
        assert nodes == {layout.node_id(layout.journal_of(state_dir))}


# --- full -------------------------------------------------------------------------------------------------------------


def may_grow(pid: int, size: int) -> None:
    """How large a process may make its files from now on: beyond it a write fails, as on a full disk."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.mark.parametrize(("on_failure", "status"), [("closed", 503), ("open", 200)])
def test_a_disk_that_takes_no_more(on_failure: str, status: int) -> None:
    config: Mapping[str, Any] = {**QUIET, "journal": {"on_failure": on_failure}}
    with running(config) as node:
        node.expected += ["journal w0: cannot write"]
        # Far more than the log has, since the limit holds for all files.
        assert [node.chat().status for _ in range(30)] == [200] * 30
        (worker,) = node.workers()
        state_dir = state_of(node)
        segment = layout.segment_path(layout.journal_of(state_dir), "w0", 1)
        node.until(lambda: sum(Kind.OUTCOME in kinds for kinds in exchanges(state_dir).values()) == 30, "the exchanges")
        may_grow(worker, segment.stat().st_size)
        assert node.metrics("gateway_journal_sync_thread", slot="0") == 0, "this kernel makes the syncs"
        answers = [node.chat() for _ in range(5)]
        assert [answer.status for answer in answers] == [status] * 5
        if status == 503:
            assert answers[0].json["error"]["code"] == "journal_unavailable"
            assert answers[0].header("retry-after") == "1"
        node.until(lambda: node.metrics("gateway_journal_failures_total") >= 1, "the count of failures")
        node.until(lambda: node.metrics("gateway_journal_failing", slot="0") == 1, "the alarm")
        if status == 200:
            node.until(lambda: node.metrics("gateway_journal_lost_records_total") >= 5, "what is not recorded")
        may_grow(worker, resource.RLIM_INFINITY)
        node.until(lambda: node.metrics("gateway_journal_failing", slot="0") == 0, "the end of the alarm")
        assert node.chat().status == 200
        node.stop()
        check(state_dir)
        modes = [entry.record for entry in lines(state_dir) if entry.record.kind is Kind.MODE]
        assert [(record.action, record.subject) for record in modes] == [
            ("entered", "journal_failing"),
            ("left", "journal_failing"),
        ]
        lost = json.loads(modes[1].detail)["lost"]
        assert lost == (5 if status == 200 else 0)


def test_what_must_be_on_the_disk_waits_for_it() -> None:
    with running({**QUIET, "routes": [{"name": "careful", "durability": "synced"}]}) as node:
        names = [node.chat().header("x-request-id") for _ in range(20)]
        state_dir = state_of(node)
        node.stop()
        check(state_dir)
        assert set(names) <= exchanges(state_dir).keys()


def test_segments_roll_and_an_upgrade_goes_on_with_them() -> None:
    config: Mapping[str, Any] = {**QUIET, "journal": {"segment_bytes": "64KiB", "max_bytes": "10MiB"}}
    with running(config) as node:
        for _ in range(120):
            node.chat("sim-m+tokens=3")
        os.kill(node.pid, signal.SIGUSR2)
        node.until(lambda: node.admin("/v1/status").json["upgrades"] == 1, "the upgrade")
        for _ in range(20):
            node.chat("sim-m+tokens=3")
        state_dir = state_of(node)
        node.stop()
        check(state_dir)
        journal = layout.journal_of(state_dir)
        assert len(layout.segments(journal, "w0")) >= 3
        assert len(exchanges(state_dir)) == 140
