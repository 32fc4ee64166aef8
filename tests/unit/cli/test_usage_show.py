"""`gateway usage`: the same table whether the node answers or its database has to be read."""

import argparse
import csv
import io
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from gateway.cli import usage, usage_show
from gateway.config.schema import Config
from gateway.control import client
from gateway.control.client import AdminRefused, AdminUnreachable
from gateway.control.database import cursors
from gateway.control.database.handle import READ_S, Database
from gateway.control.database.usage_rows import add
from gateway.control.readers.base import Cursor
from gateway.control.usage_fields import MEASURES, Group
from gateway.control.usage_page import ask
from gateway.control.usage_question import parse
from gateway.journal.read import Place

HOUR_S = 1_763_733_600
GROUP = Group("n", "acme", "search", "k", "ann", "large", "big/large")
AT = ["--since", "2025-11-21", "--until", "2025-11-22"]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = tmp_path / "gateway.yaml"
    path.write_text(f"admin: {{port: {port}, token: 0123456789abcdef}}\nstate_dir: {tmp_path}/state\n")
    return path


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database("", tmp_path / "state")
    with made.writing() as connection:
        rows = {(HOUR_S, GROUP._replace(key_id=f"k{at}")): [at * 1000] * len(MEASURES) for at in range(5)}
        rows[HOUR_S + 3600, GROUP._replace(model="=small", key_id="", target="tiny/\x1b[2J")] = [7] * len(MEASURES)
        add(connection, rows)
    yield made
    made.close()


def run(config: Path, *words: str) -> int:
    parser = argparse.ArgumentParser()
    usage.add_usage(parser.add_subparsers())
    given = parser.parse_args(["usage", "--config", str(config), *words])
    return int(given.run(given))


@pytest.fixture
def live(database: Database, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A node that answers from the database; the paths it was asked for."""
    asked: list[str] = []

    def answer(_config: Config, method: str, path: str, *, timeout_s: float) -> dict[str, Any]:
        assert method == "GET"
        assert timeout_s > READ_S
        assert path.startswith("/v1/usage?")
        asked.append(path)
        return ask(database, parse(parse_qsl(path.partition("?")[2]), HOUR_S)) | {"unread_records": 4}

    monkeypatch.setattr(client, "ask", answer)
    return asked


# --- the table ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("live")
def test_the_dearest_stand_first_and_the_total_last(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config, *AT, "--by", "key,model") == 0
    said = capsys.readouterr()
    assert said.out == (
        "usage from 2025-11-21T00:00:00Z to 2025-11-22T00:00:00Z\n"
        "\n"
        "key    model   requests  refused  failed   input  output  cost USD\n"
        "-----  ------  --------  -------  ------  ------  ------  --------\n"
        "k4     large      4,000    4,000   4,000   4,000   4,000  0.004000\n"
        "k3     large      3,000    3,000   3,000   3,000   3,000  0.003000\n"
        "k2     large      2,000    2,000   2,000   2,000   2,000  0.002000\n"
        "k1     large      1,000    1,000   1,000   1,000   1,000  0.001000\n"
        "-      =small         7        7       7       7       7  0.000007\n"
        "k0     large          0        0       0       0       0  0.000000\n"
        "total            10,007   10,007  10,007  10,007  10,007  0.010007\n"
    )
    assert said.err == "4 records are written and not counted yet\n"


@pytest.mark.usefixtures("live")
def test_hours_keep_their_order(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config, *AT, "--by", "hour") == 0
    out = capsys.readouterr().out
    assert out.index("2025-11-21T14:00:00Z") < out.index("2025-11-21T15:00:00Z")


@pytest.mark.usefixtures("live")
def test_by_nothing_it_is_the_total(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config, *AT, "--by", "") == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["10,007"] * 5 + ["0.010007"]


@pytest.mark.usefixtures("live")
def test_nothing_in_a_name_moves_the_cursor(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config, *AT, "--by", "target") == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "tiny/\ufffd[2J" in out


@pytest.mark.usefixtures("live")
def test_only_what_is_asked_for(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config, *AT, "--by", "key", "--key", "k1", "--key", "k2", "--org", "acme") == 0
    out = capsys.readouterr().out
    assert ("k1" in out, "k2" in out, "k3" in out) == (True, True, False)


@pytest.mark.usefixtures("live")
def test_a_limit_is_said(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config, *AT, "--by", "key", "--limit", "2") == 0
    said = capsys.readouterr()
    assert [line.split()[0] for line in said.out.splitlines()[4:]] == ["k4", "k3", "total"]
    assert "there are more than these: see --limit" in said.err


@pytest.mark.usefixtures("live")
def test_what_was_never_counted_is_said(config: Path, database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    with database.writing() as connection:
        was = cursors.held(connection, "usage", "n", ["w0"])["w0"]
        cursors.advance(connection, "usage", "n", "w0", was, Cursor(Place(2, 0), 9, missing=5))
    assert run(config, *AT) == 0
    assert "5 records were dropped from the journal before they could be counted" in capsys.readouterr().err


def test_pages_are_asked_for_until_there_is_enough(
    config: Path, live: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_show, "MAX_LIMIT", 2)
    assert run(config, *AT, "--by", "key", "--limit", "5") == 0
    assert len(live) == 3
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[4:]] == [
        "k4",
        "k3",
        "k2",
        "k1",
        "-",
        "total",
    ]


# --- for programs ---------------------------------------------------------------------------------------------------


def test_json_is_one_document_of_all_pages(
    config: Path, live: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_show, "MAX_LIMIT", 4)
    assert run(config, *AT, "--by", "key", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert len(live) == 2
    assert [row["key"] for row in told["rows"]] == ["k4", "k3", "k2", "k1", "", "k0"]
    assert (told["total"]["cost_microusd"], told["next"], told["unread_records"]) == (10_007, None, 4)


@pytest.mark.usefixtures("live")
def test_csv_has_one_head(config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_show, "MAX_LIMIT", 4)
    assert run(config, *AT, "--by", "model,key", "--csv") == 0
    said = capsys.readouterr()
    rows = list(csv.reader(io.StringIO(said.out, newline="")))
    assert rows[0] == ["model", "key", *MEASURES]
    assert [row[0] for row in rows[1:]] == ["large"] * 4 + ["'=small", "large"]
    assert "not counted yet" in said.err


# --- without a node -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("database")
def test_without_a_node_the_database_is_read(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config, *AT, "--by", "key", "--limit", "3") == 0
    said = capsys.readouterr()
    assert "k4" in said.out
    assert "no gateway answers on the admin port: read from the database itself" in said.err


def test_a_database_that_nobody_has_open_is_read_page_by_page(
    config: Path, database: Database, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    database.close()
    monkeypatch.setattr(usage_show, "MAX_LIMIT", 4)
    assert run(config, *AT, "--by", "key", "--json") == 0
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert len(told["rows"]) == 6
    assert told["unread_records"] is None
    assert said.err.count("no gateway answers") == 1


def test_without_either_it_is_said(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config) == 1
    assert "there is no database at" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()


# --- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--by", "modle"], "gateway: --by: usage is not kept by 'modle'; it is by node, org"),
        (["--since", "yesterday"], "gateway: --since: 'yesterday' is no moment"),
        (["--until", "x"], "gateway: --until: 'x' is no moment"),
        (["--since", "1d", "--until", "2d"], "gateway: --since: it must be before --until"),
        (["--limit", "0"], "gateway: --limit: '0' is no whole number"),
    ],
)
def test_wrong_words_end_with_2(config: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config, *words) == 2
    assert capsys.readouterr().err.startswith(said)


def test_a_bad_config_ends_with_1(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text("modles: {}\n")
    assert run(config) == 1
    assert "modles" in capsys.readouterr().err


def test_a_node_that_refuses_is_not_passed_over(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AdminRefused("send the admin token")

    monkeypatch.setattr(client, "ask", refuse)
    assert run(config) == 1
    assert "the admin API refused: send the admin token" in capsys.readouterr().err


def test_a_node_that_leaves_in_the_middle_is_followed_by_its_database(
    config: Path, live: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_show, "MAX_LIMIT", 4)
    answer = client.ask

    def leave(given: Config, method: str, path: str, *, timeout_s: float) -> dict[str, Any]:
        if live:
            raise AdminUnreachable("gone")
        return answer(given, method, path, timeout_s=timeout_s)

    monkeypatch.setattr(client, "ask", leave)
    assert run(config, *AT, "--by", "key", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 6
