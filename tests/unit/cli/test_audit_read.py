"""What `gateway audit show` and `grep` print, and the codes they end with."""

import json
from argparse import Namespace
from pathlib import Path

import pytest

from gateway.cli import audit_read
from gateway.journal.erase import erase
from gateway.journal.seal import Sealer
from gateway.record import Kind, Personal
from tests.fakes.a_journal import AJournal

Said = pytest.CaptureFixture[str]


@pytest.fixture
def made(tmp_path: Path) -> AJournal:
    """Two chains, with one refusal."""
    made = AJournal(tmp_path / "state")
    made.write("w0", 3, model="gpt", decision="allow", key_id="demo")
    made.write("w1", 1, decision="refuse", error="rate_limited", key_id="other")
    made.write("w0", 1, model="gpt", decision="allow", key_id="demo")
    return made


def given(directory: Path, **more: object) -> Namespace:
    filters = dict.fromkeys(
        ["key", "org", "team", "model", "decision", "kind", "error", "exchange", "since", "until"], ""
    )
    rest = {"body": None, "personal": False, "limit": None, "follow": False, "json": False, "pattern": ""}
    rest["unfinished"] = False
    return Namespace(**{"directory": str(directory), "config": "", "set": []} | filters | rest | more)


def printed(capsys: Said) -> list[str]:
    """The ids of the lines that were printed."""
    return [line.split()[1] for line in capsys.readouterr().out.splitlines()]


def test_everything_in_the_order_of_time(made: AJournal, capsys: Said) -> None:
    assert audit_read.show(given(made.state_dir)) == 0
    assert printed(capsys) == ["w0/1/0", "w0/1/1", "w0/1/2", "w0/1/3", "w1/1/0", "w1/1/1", "w0/1/4"]


@pytest.mark.parametrize(
    ("asked", "ids"),
    [
        ({"key": "demo"}, ["w0/1/1", "w0/1/2", "w0/1/3", "w0/1/4"]),
        ({"key": "demo", "limit": 2}, ["w0/1/3", "w0/1/4"]),
        ({"decision": "refuse"}, ["w1/1/1"]),
        ({"error": "rate_limited"}, ["w1/1/1"]),
        ({"model": "gpt", "limit": 1}, ["w0/1/4"]),
        ({"kind": "checkpoint"}, ["w0/1/0", "w1/1/0"]),
        ({"exchange": "x-w0-2"}, ["w0/1/2"]),
        ({"since": "2027-01-16"}, []),
        ({"until": "2027-01-15T08:00:00Z"}, []),
        ({"since": "2027-01-15", "until": "2027-01-16", "key": "other"}, ["w1/1/1"]),
        ({"org": "nobody"}, []),
        ({"team": "nobody"}, []),
    ],
)
def test_what_is_asked_for(made: AJournal, asked: dict[str, object], ids: list[str], capsys: Said) -> None:
    assert audit_read.show(given(made.journal, **asked)) == 0
    assert printed(capsys) == ids


def test_decisions_whose_outcome_never_came(made: AJournal, capsys: Said) -> None:
    for _ in range(3):
        made.write("w1", kind=Kind.DECISION, key_id="other", decision="allow")
    assert audit_read.grep(given(made.state_dir, unfinished=True, pattern="x")) == 1
    made.write("w1", kind=Kind.CHECKPOINT, exchange_id="", action="began")
    assert audit_read.show(given(made.state_dir, unfinished=True)) == 0
    assert printed(capsys) == ["w1/1/2", "w1/1/3", "w1/1/4"]
    assert audit_read.show(given(made.state_dir, unfinished=True, limit=2)) == 0
    assert printed(capsys) == ["w1/1/3", "w1/1/4"]
    assert audit_read.grep(given(made.state_dir, unfinished=True, pattern="x-w1-3")) == 0
    assert printed(capsys) == ["w1/1/3"]


def test_grep_over_the_lines(made: AJournal, capsys: Said) -> None:
    assert audit_read.grep(given(made.state_dir, pattern='"exchange_id":"x-w[01]-1"')) == 0
    assert printed(capsys) == ["w0/1/1", "w1/1/1"]
    assert audit_read.grep(given(made.state_dir, pattern="x-w", decision="refuse")) == 0
    assert printed(capsys) == ["w1/1/1"]


def test_grep_that_finds_nothing_ends_with_1(made: AJournal, capsys: Said) -> None:
    assert audit_read.grep(given(made.state_dir, pattern="nothing like that")) == 1
    assert printed(capsys) == []


def test_the_lines_as_they_stand(made: AJournal, capsys: Said) -> None:
    assert audit_read.show(given(made.state_dir, key="demo", json=True)) == 0
    lines = made.path("w0", 1).read_text().splitlines()[1:]
    assert capsys.readouterr().out.splitlines() == lines
    assert json.loads(lines[0])["seq"] == 1


# --- sealed parts ---------------------------------------------------------------------------------------------------


@pytest.fixture
def sealed(made: AJournal) -> AJournal:
    """One exchange of ann's, sealed as a worker does."""
    sealer = Sealer(made.state_dir / "sealing", "w0")
    key = sealer.key("acme", "ann", "")
    part = key.seal(Personal(user="ann", client_ip="10.0.0.1"), "x-1")
    made.write("w0", exchange_id="x-1", sealed=part, sealed_by=key.id, prompt_digest=key.digest(b"hello"))
    sealer.close()
    return made


def test_who_it_was_is_shown_if_asked(sealed: AJournal, capsys: Said) -> None:
    assert audit_read.show(given(sealed.state_dir, exchange="x-1")) == 0
    assert "ann" not in capsys.readouterr().out
    assert audit_read.show(given(sealed.state_dir, exchange="x-1", personal=True)) == 0
    assert "[user ann, ip 10.0.0.1]" in capsys.readouterr().out


def test_who_was_erased_stays_so(sealed: AJournal, capsys: Said) -> None:
    assert erase(sealed.state_dir / "sealing", org="acme", user="ann") == 1
    assert audit_read.show(given(sealed.state_dir, exchange="x-1", personal=True)) == 0
    assert "[personal part erased" in capsys.readouterr().out


def test_a_record_by_its_body(sealed: AJournal, tmp_path: Path, capsys: Said) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"hello")
    assert audit_read.show(given(sealed.state_dir, body=str(body))) == 0
    assert printed(capsys) == ["w0/1/5"]
    body.write_bytes(b"hello!")
    assert audit_read.grep(given(sealed.state_dir, body=str(body), pattern="x")) == 1


@pytest.mark.parametrize("asked", [{"personal": True}, {"body": "/dev/null"}])
def test_a_copy_has_no_keys(made: AJournal, asked: dict[str, object], capsys: Said) -> None:
    assert audit_read.show(given(made.journal, **asked)) == 2
    assert "holds no sealing keys" in capsys.readouterr().err


# --- following ------------------------------------------------------------------------------------------------------


def test_what_is_written_from_now_on(made: AJournal, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    chains = ["w1", "w0"]

    def pause(seconds: float) -> None:
        assert 0 < seconds <= 1
        if not chains:
            stop()
        made.write(chains.pop(0))

    monkeypatch.setattr("gateway.cli.audit_read.time.sleep", pause)
    with pytest.raises(KeyboardInterrupt):
        audit_read.show(given(made.state_dir, follow=True, kind="outcome", limit=1))
    assert printed(capsys) == ["w0/1/4", "w1/1/2", "w0/1/5"]


def stop() -> None:
    raise KeyboardInterrupt


def test_following_begins_with_the_newest_ten(made: AJournal, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    made.write("w0", 20)
    monkeypatch.setattr("gateway.cli.audit_read.time.sleep", lambda _: stop())
    with pytest.raises(KeyboardInterrupt):
        audit_read.show(given(made.state_dir, follow=True))
    assert len(printed(capsys)) == 10


# --- words that are wrong -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"since": "yesterdayish"}, "--since: 'yesterdayish' is no moment"),
        ({"until": "x"}, "--until: 'x' is no moment"),
        ({"json": True, "personal": True}, "leave out one of the two"),
        ({"body": "/nowhere"}, "/nowhere cannot be read"),
        ({"unfinished": True, "follow": True}, "leave out one of the two"),
    ],
)
def test_words_that_mean_nothing(sealed: AJournal, asked: dict[str, object], words: str, capsys: Said) -> None:
    assert audit_read.show(given(sealed.state_dir, **asked)) == 2
    assert words in capsys.readouterr().err


def test_a_pattern_that_is_none(made: AJournal, capsys: Said) -> None:
    assert audit_read.grep(given(made.state_dir, pattern="(")) == 2
    assert "is no regular expression" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "nowhere"])
def test_a_directory_without_a_journal(tmp_path: Path, name: str, capsys: Said) -> None:
    assert audit_read.show(given(tmp_path / name)) == 2
    assert "holds no journal" in capsys.readouterr().err


def test_a_config_that_cannot_be_read(tmp_path: Path, capsys: Said) -> None:
    words = given(tmp_path, config=str(tmp_path / "none.yaml"))
    words.directory = None
    assert audit_read.show(words) == 1
    assert "none.yaml" in capsys.readouterr().err


def test_a_file_that_goes_away_meanwhile(made: AJournal, capsys: Said) -> None:
    made.path("w0", 1).unlink()
    made.path("w0", 1).mkdir()
    assert audit_read.show(given(made.state_dir)) == 1
    assert "ask again" in capsys.readouterr().err


def test_a_reader_that_has_enough(made: AJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    """`gateway audit show | head`: main ends that quietly."""

    def closed(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", closed)
    with pytest.raises(BrokenPipeError):
        audit_read.show(given(made.state_dir))
