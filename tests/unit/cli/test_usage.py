"""The words of `gateway usage`, and that saying them loads nothing that only doing them needs."""

import argparse
import subprocess
import sys

import pytest

from gateway.cli import usage, usage_show
from gateway.control.usage_question import BY


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    usage.add_usage(parser.add_subparsers())
    return parser.parse_args(["usage", *words])


def test_without_a_word() -> None:
    given = parsed()
    assert (given.config, given.by, given.since, given.until) == ("gateway.yaml", "model", "7d", "now")
    assert (given.limit, given.json, given.csv, given.org) == (None, False, False, None)


def test_names_may_be_repeated() -> None:
    assert parsed("--org", "a", "--org", "b", "--key", "k").org == ["a", "b"]


def test_one_form_at_a_time() -> None:
    with pytest.raises(SystemExit):
        parsed("--json", "--csv")


def test_help_names_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--help")
    out = " ".join(capsys.readouterr().out.split())
    assert all(word in out for word in ("--since", "--until", "--json", "--csv", "--limit", "--model", ", ".join(BY)))
    assert f"rows at most ({usage_show.DEFAULT_LIMIT};" in out


def test_doing_it_is_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_show, "run", lambda given: 7 if given.by == "key" else 1)
    given = parsed("--by", "key")
    assert given.run(given) == 7


def test_its_words_are_quick() -> None:
    code = "import sys, gateway.cli.usage; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"aiohttp", "asyncio", "yaml", "msgspec", "sqlalchemy"} & set(done.stdout.split())
