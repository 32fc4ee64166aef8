"""The words of `gateway journal`: each leads to its work, and help answers without loading any of it."""

import argparse
import subprocess
import sys
from unittest import mock

import pytest

from gateway.cli import journal_work
from gateway.cli.journal import add_journal


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="gateway")
    add_journal(made.add_subparsers(required=True))
    return made


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["status"], "status"),
        (["status", "--json"], "status"),
        (["hold", "list"], "hold_list"),
        (["hold", "add", "--why", "x", "--from", "2026-01-01", "--to", "2026-02-01", "--org", "acme"], "hold_add"),
        (["hold", "release", "1a2b", "--actor", "ann"], "hold_release"),
        (["erase", "--tenant", "acme", "--user", "ann", "--yes"], "erase"),
    ],
)
def test_words_lead_to_work(words: list[str], what: str) -> None:
    given = parser().parse_args(["journal", *words, "--config", "c.yaml", "--set", "a=b"])
    assert (given.what, given.config, given.set) == (what, "c.yaml", ["a=b"])
    with mock.patch.object(journal_work, "run", return_value=7) as run:
        assert given.run(given) == 7
    run.assert_called_once_with(given)


def test_all_work_has_words() -> None:
    whats = {"status", "hold_list", "hold_add", "hold_release", "erase"}
    assert set(journal_work._WORK) == whats


@pytest.mark.parametrize("words", [[], ["hold"], ["hold", "add"], ["hold", "release"], ["erase"], ["forget"]])
def test_words_that_are_missing_or_wrong(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parser().parse_args(["journal", *words])
    assert left.value.code == 2
    assert "usage: gateway journal" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["status"], ["hold"], ["hold", "add"], ["hold", "list"], ["erase"]])
def test_help_says_what_it_does(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parser().parse_args(["journal", *words, "--help"])
    assert left.value.code == 0
    assert len(capsys.readouterr().out) > 200


def test_words_load_no_work() -> None:
    asked = (
        "import sys; import gateway.cli.journal; print(*[m for m in sys.modules if m.startswith('gateway.control')])"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
