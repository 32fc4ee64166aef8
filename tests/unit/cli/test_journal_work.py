"""What `gateway journal` asks of a running node, does at rest, prints, and ends with."""

import argparse
import getpass
import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from gateway.cli import journal_offline, journal_work
from gateway.cli.journal import add_journal
from gateway.control import client
from gateway.control.client import AdminRefused, AdminUnreachable
from gateway.process.lock import StateLock
from gateway.process.settings import StartError
from tests.fakes.journal_node import CONFIG, JournalNode

HOLD = {"id": "1a2b", "why": "case", "actor": "ann", "at_us": 5, "from_us": 0, "to_us": 8}


@pytest.fixture
def node(tmp_path: Path) -> JournalNode:
    return JournalNode(tmp_path)


def run(node: JournalNode, *words: str) -> int:
    """The command on this node; its exit code."""
    parser = argparse.ArgumentParser(prog="gateway")
    add_journal(parser.add_subparsers())
    given = parser.parse_args(["journal", *words, "--config", str(node.path)])
    code: int = given.run(given)
    return code


class Live:
    """A running node that answers what it is told to, and remembers what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str, object]] = []
        self.waits_s: list[float] = []

    def __call__(self, _config: object, method: str, path: str, body: object = None, timeout_s: float = 0) -> object:
        self.asked.append((method, path, body))
        self.waits_s.append(timeout_s)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@contextmanager
def live(*answers: Any) -> Iterator[Live]:
    node = Live(*answers)
    with mock.patch.object(client, "ask", node):
        yield node


# --- a node that runs -----------------------------------------------------------------------------------------------


def test_a_running_node_is_asked_for_a_hold(node: JournalNode, capsys: pytest.CaptureFixture[str]) -> None:
    with live(HOLD) as asked:
        code = run(node, "hold", "add", "--why", "case", "--from", "1970-01-01", "--to", "1970-01-02", "--actor", "ann")
    assert code == 0
    body = {"why": "case", "actor": "ann", "from_us": 0, "to_us": 172_799_999_999, "org": ""}
    assert asked.asked == [("POST", "/v1/journal/holds", body)]
    assert capsys.readouterr().out.startswith("hold 1a2b is in force: from the beginning to ")
    assert node.told() == [], "and nothing is done here"


def test_and_for_its_end(node: JournalNode, capsys: pytest.CaptureFixture[str]) -> None:
    with live(HOLD) as asked:
        assert run(node, "hold", "release", "../1a 2b", "--actor", "eve") == 0
    assert asked.asked == [("POST", "/v1/journal/holds/..%2F1a%202b/release", {"actor": "eve"})]
    assert "hold 1a2b is released" in capsys.readouterr().out


def test_and_for_the_list(node: JournalNode, capsys: pytest.CaptureFixture[str]) -> None:
    with live({"holds": [HOLD]}, {"holds": [HOLD]}, {"holds": []}):
        assert run(node, "hold", "list") == 0
        assert capsys.readouterr().out.startswith("1a2b  from the beginning to ")
        assert run(node, "hold", "list", "--json") == 0
        assert json.loads(capsys.readouterr().out) == {"holds": [HOLD]}
        assert run(node, "hold", "list") == 0
        assert capsys.readouterr() == ("", "no hold is in force\n")


def test_and_to_forget(node: JournalNode, capsys: pytest.CaptureFixture[str]) -> None:
    with live({"keys": 3, "usage_rows": 4}) as asked:
        assert run(node, "erase", "--tenant", "acme", "--user", "ann", "--yes", "--actor", "eve") == 0
    assert asked.asked == [("POST", "/v1/journal/erase", {"org": "acme", "user": "ann", "actor": "eve"})]
    assert asked.waits_s == [journal_work.ERASE_S]
    said = capsys.readouterr()
    assert said.out == "3 keys are destroyed; 4 rows of usage name nobody now\n"
    for told in ("user ann of acme", "exports that show them: siem", "backups", "other nodes"):
        assert told in said.err


def test_a_refusal_is_said(node: JournalNode, capsys: pytest.CaptureFixture[str]) -> None:
    with live(AdminRefused("legal hold 1a2b keeps it")):
        assert run(node, "erase", "--tenant", "acme", "--yes") == 1
    assert "gateway: legal hold 1a2b keeps it" in capsys.readouterr().err
    assert node.told() == []


def test_one_that_does_not_answer_is_left_alone(node: JournalNode, capsys: pytest.CaptureFixture[str]) -> None:
    lock = StateLock.acquire(node.state_dir, 0.0)
    with live(AdminUnreachable("timed out")):
        assert run(node, "hold", "add", "--why", "case") == 1
    lock.release()
    said = capsys.readouterr().err
    assert "a gateway runs and could not be asked (timed out)" in said
    assert node.told() == []


def test_a_state_directory_that_cannot_be_used_is_no_running_gateway(
    node: JournalNode, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = StartError("state_dir: Permission denied")
    refused.__cause__ = PermissionError()
    with mock.patch.object(StateLock, "acquire", side_effect=refused):
        assert run(node, "hold", "add", "--why", "case") == 1
    assert capsys.readouterr().err == "gateway: state_dir: Permission denied\n"


# --- one that does not ----------------------------------------------------------------------------------------------


def test_at_rest_it_is_done_here(node: JournalNode, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(node, "hold", "add", "--why", "case", "--org", "other") == 0
    hold_id = capsys.readouterr().out.split()[1]
    assert run(node, "hold", "list") == 0
    assert capsys.readouterr().out.startswith(f"{hold_id}  from the beginning to no end, for other")
    assert run(node, "erase", "--tenant", "acme", "--user", "ann", "--yes") == 0
    assert capsys.readouterr().out == "1 keys are destroyed; 0 rows of usage name nobody now\n"
    assert run(node, "hold", "release", hold_id) == 0
    assert [(record.action, record.actor) for record in node.told()] == [
        (action, getpass.getuser()) for action in ("journal.hold", "journal.erase", "journal.release")
    ]
    assert node.verified().findings == []


def test_what_cannot_be_done_ends_with_1(node: JournalNode, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(node, "hold", "release", "none") == 1
    assert "there is no hold 'none'" in capsys.readouterr().err
    (node.journal.path / "holds.json").write_text("[")
    for words in (["hold", "list"], ["hold", "add", "--why", "x"], ["erase", "--tenant", "acme", "--yes"]):
        assert run(node, *words) == 1
        assert "holds.json cannot be read" in capsys.readouterr().err


def test_nobody_found_is_said(node: JournalNode, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(node, "erase", "--tenant", "acme", "--user", "nobody", "--yes") == 0
    assert "nobody of that name was found" in capsys.readouterr().err


# --- words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hold", "add", "--why", "x", "--from", "soon"], "soon is no time"),
        (["hold", "add", "--why", "x", "--from", "2026-01-02", "--to", "2026-01-01"], "--from is after --to"),
        (["erase", "--tenant", "acme"], "say --yes"),
    ],
)
def test_words_that_cannot_be_meant_end_with_2(
    node: JournalNode, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with mock.patch.object(sys, "stdin", io.StringIO("erase\n")):
        assert run(node, *words) == 2
    assert said in capsys.readouterr().err
    assert node.told() == []


def test_a_user_without_a_name_must_say_who(node: JournalNode, capsys: pytest.CaptureFixture[str]) -> None:
    with mock.patch.object(getpass, "getuser", side_effect=OSError("no username")):
        assert run(node, "hold", "add", "--why", "x") == 2
    assert "--actor" in capsys.readouterr().err


@pytest.mark.parametrize(("typed", "code", "records"), [("erase\n", 0, 1), ("y\n", 1, 0), ("", 1, 0)])
def test_a_person_is_asked_first(node: JournalNode, typed: str, code: int, records: int) -> None:
    stdin = mock.Mock(spec=io.StringIO, wraps=io.StringIO(typed), isatty=mock.Mock(return_value=True))
    with mock.patch.object(sys, "stdin", stdin):
        assert run(node, "erase", "--tenant", "acme") == code
    assert len(node.told()) == records


# --- status, and configs --------------------------------------------------------------------------------------------


def test_the_status_of_a_running_node(node: JournalNode, capsys: pytest.CaptureFixture[str]) -> None:
    told = journal_offline.status(node.config) | {"problems": ["no key"]}
    with live(told, told):
        assert run(node, "status") == 0
        said = capsys.readouterr()
        assert said.out.startswith("journal of node ")
        assert said.err == "problem: no key\n"
        assert run(node, "status", "--json") == 0
        assert json.loads(capsys.readouterr().out) == told


def test_the_status_at_rest(node: JournalNode, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(node, "status") == 0
    said = capsys.readouterr()
    assert "reader export-siem: 4 records behind" in said.out
    assert "read from its files" in said.err


def test_a_config_that_is_wrong(node: JournalNode, capsys: pytest.CaptureFixture[str]) -> None:
    node.path.write_text("modles: {}\n")
    assert run(node, "status") == 1
    assert "models" in capsys.readouterr().err


def test_a_config_without_a_journal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    node = JournalNode(tmp_path, CONFIG.replace("exports:", "#").rstrip() + "\njournal: {enabled: false}\n")
    assert run(node, "status") == 0, "what was kept before is still there"
    capsys.readouterr()
    node.path.write_text(node.path.read_text().replace("state_dir: state", "state_dir: elsewhere"))
    assert run(node, "status") == 1
    assert "journal.enabled is false" in capsys.readouterr().err
    node.path.write_text(node.path.read_text().replace("enabled: false", "enabled: true"))
    assert run(node, "status") == 1
    assert "there is no journal in" in capsys.readouterr().err


def test_a_disk_that_fails_is_said(node: JournalNode, capsys: pytest.CaptureFixture[str]) -> None:
    with mock.patch.object(journal_offline, "status", side_effect=PermissionError(13, "Permission denied")):
        assert run(node, "status") == 1
    assert "the state directory cannot be used" in capsys.readouterr().err
