"""The journal's endpoints over real HTTP: what they do, and that every refusal says why with a fitting status."""

import asyncio
import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from gateway.config.schema import Export
from gateway.control.database.trouble import DatabaseTrouble
from gateway.control.erasure import Erasure
from gateway.control.expiry import RetentionSettings
from gateway.control.holds import FOREVER_US, Holds
from gateway.control.journal_api import JournalApi
from gateway.control.notary import Notary
from gateway.control.readers.export import ExportReader
from gateway.control.readers.runner import Runner, Source
from gateway.control.retention import Retention
from gateway.control.sinks.file import FileSink
from gateway.journal import layout
from gateway.journal.keytable import ensure_salt
from gateway.record import Kind, Record
from tests.fakes.written_journal import NODE, WrittenJournal

NOW_US = 1_763_700_000_000_000


class Scene:
    """A control with a journal of one chain, an export that has not begun, and the endpoints."""

    def __init__(self, directory: Path) -> None:
        self.journal = WrittenJournal(directory / "state")
        self.journal.chain("w0").segment(NOW_US, Record(Kind.OUTCOME, "x", NOW_US))
        self.records: list[Record] = []
        self.down = False
        state_dir = self.journal.state_dir
        self.notary = Notary(self.journal.path, layout.signing_of(state_dir), lambda: NOW_US)
        self.notary.turn()
        source = Source(self.journal.path, NODE, lambda: self.notary.signed, lambda: self.notary.head_seq)
        sink = FileSink(directory / "away" / "out", 1000)
        settings = Export(name="siem", kind="file")
        reader = ExportReader(settings, sink, self.journal.path, NODE, state_dir, lambda _: None)
        self.runner = Runner(reader, source, state_dir)
        self.holds = Holds(self.journal.path, self.records.append, lambda: NOW_US)
        self.retention = Retention(
            state_dir,
            RetentionSettings(100, 30),
            self.notary,
            lambda: {self.runner.name: self.runner.places()},
            lambda _: None,
            self.holds,
            lambda: NOW_US,
        )
        ensure_salt(layout.sealing_of(state_dir))
        erasure = Erasure(state_dir, self.holds, self.forget, self.records.append, lambda: NOW_US)
        self.api = JournalApi(state_dir, self.notary, self.retention, [self.runner], self.holds, erasure)

    def forget(self, org: str, user: str) -> int:
        if self.down:
            raise DatabaseTrouble("the database is away")
        return len(org) + len(user)

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """One request: status and answer."""
        app = web.Application()
        app.router.add_get("/v1/journal", self.api.status)
        app.router.add_get("/v1/journal/holds", self.api.holds)
        app.router.add_post("/v1/journal/holds", self.api.add_hold)
        app.router.add_post("/v1/journal/holds/{id}/release", self.api.release_hold)
        app.router.add_post("/v1/journal/erase", self.api.erase)
        data = body if isinstance(body, bytes) else json.dumps(body)

        async def main() -> tuple[int, Any]:
            async with (
                TestServer(app) as server,
                ClientSession(server.make_url("/")) as session,
                session.request(method, path, data=data) as response,
            ):
                return response.status, await response.json()

        return asyncio.run(main())


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


# --- how it is ------------------------------------------------------------------------------------------------------


def test_the_status_has_the_files_and_what_runs(scene: Scene) -> None:
    scene.runner.step()
    scene.retention.turn()
    status, told = scene.ask("GET", "/v1/journal")
    assert status == 200
    assert told["chains"][0]["signed"]["seq"] == 1
    (reader,) = told["readers"]
    assert (reader["name"], reader["lag_records"], reader["poisoned"]) == ("export-siem", 2, 0)
    assert "No such file" in reader["failing"]
    assert told["retention"]["alarm"]
    assert told["retention"]["max_bytes"] == 100
    assert "the newest segment of each chain stays" in told["retention"]["reasons"][0]
    assert told["problems"] == []


def test_a_reader_is_behind_what_the_same_answer_says_is_signed(scene: Scene) -> None:
    scene.notary.head_seq = {}  # a manifest is on the disk, and the notary still waits to hear that it is
    told = scene.ask("GET", "/v1/journal")[1]
    assert (told["chains"][0]["unsigned_bytes"], told["chains"][0]["signed"]["seq"]) == (0, 1)
    assert told["readers"][0]["lag_records"] == 2


def test_what_is_wrong_with_the_running_parts_is_a_problem(scene: Scene) -> None:
    scene.notary.problem = "no key"
    scene.retention.failing = "no space"
    with mock.patch.object(Notary, "broken", {"w0": "line 3 does not follow"}):
        told = scene.ask("GET", "/v1/journal")[1]
    assert told["problems"] == ["no key", "no space", "chain w0 is signed no further: line 3 does not follow"]


def test_no_journal_is_said(scene: Scene) -> None:
    (scene.journal.path / "node.json").unlink()
    status, told = scene.ask("GET", "/v1/journal")
    assert (status, told["error"]["code"]) == (503, "no_journal")


# --- holds ----------------------------------------------------------------------------------------------------------


def test_a_hold_from_its_beginning_to_its_end(scene: Scene) -> None:
    asked = {"why": "case", "actor": "ann", "from_us": 5, "org": "acme"}
    status, hold = scene.ask("POST", "/v1/journal/holds", asked)
    assert (status, hold["why"], hold["from_us"], hold["to_us"], hold["org"]) == (200, "case", 5, FOREVER_US, "acme")
    assert scene.ask("GET", "/v1/journal/holds") == (200, {"holds": [hold]})
    assert scene.ask("GET", "/v1/journal")[1]["holds"] == [hold]
    assert scene.ask("POST", f"/v1/journal/holds/{hold['id']}/release", {"actor": "eve"}) == (200, hold)
    assert scene.ask("GET", "/v1/journal/holds") == (200, {"holds": []})
    assert [(record.action, record.actor) for record in scene.records] == [
        ("journal.hold", "ann"), ("journal.release", "eve"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"\xff", b'{"why":"x","actor":"\xff"}', {"why": "x"}, {"why": "", "actor": "ann"},
     {"why": "x", "actor": "ann", "from_us": "now"}, {"why": "x", "actor": "ann", "until": 5},
     {"why": "x", "actor": "ann", "from_us": 9, "to_us": 8}],
)  # fmt: skip
def test_what_makes_no_hold(scene: Scene, body: object) -> None:
    status, told = scene.ask("POST", "/v1/journal/holds", body)
    assert (status, told["error"]["code"]) == (400, "invalid_hold")
    assert told["error"]["message"]
    assert scene.records == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [({"actor": "ann"}, 404, "hold_not_found"), ({}, 400, "invalid_release"), ({"actor": ""}, 400, "invalid_release")],
)
def test_what_releases_nothing(scene: Scene, body: object, status: int, code: str) -> None:
    answered, told = scene.ask("POST", "/v1/journal/holds/none/release", body)
    assert (answered, told["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("POST", "", {"why": "x", "actor": "ann"}),
        ("POST", "/a/release", {"actor": "ann"}),
    ],
)
def test_holds_nobody_can_read(scene: Scene, method: str, path: str, body: object) -> None:
    (scene.journal.path / "holds.json").write_text("[")
    status, told = scene.ask(method, f"/v1/journal/holds{path}", body)
    assert (status, told["error"]["code"]) == (503, "holds_unreadable")
    assert scene.ask("POST", "/v1/journal/erase", {"org": "acme", "actor": "ann"})[0] == 503


# --- forgetting -----------------------------------------------------------------------------------------------------


def test_people_are_forgotten(scene: Scene) -> None:
    asked = {"org": "acme", "user": "ann", "actor": "eve"}
    assert scene.ask("POST", "/v1/journal/erase", asked) == (200, {"keys": 0, "usage_rows": 7})
    assert [record.action for record in scene.records] == ["journal.erase"]


def test_a_held_person_is_not(scene: Scene) -> None:
    scene.holds.add("case", "ann")
    status, told = scene.ask("POST", "/v1/journal/erase", {"org": "acme", "actor": "eve"})
    assert (status, told["error"]["code"]) == (409, "erasure_refused")
    assert "release it first" in told["error"]["message"]


def test_what_is_left_undone_is_told(scene: Scene) -> None:
    scene.down = True
    status, told = scene.ask("POST", "/v1/journal/erase", {"org": "acme", "actor": "eve"})
    assert (status, told["error"]["code"]) == (503, "erasure_unfinished")
    assert "the database is away" in told["error"]["message"]


@pytest.mark.parametrize("body", [b"", {"actor": "eve"}, {"org": "acme"}, {"org": "acme", "actor": "e", "users": []}])
def test_what_names_nobody_to_forget(scene: Scene, body: object) -> None:
    status, told = scene.ask("POST", "/v1/journal/erase", body)
    assert (status, told["error"]["code"]) == (400, "invalid_erasure")
    assert scene.records == []
