"""What a gateway wrote down is asked of its admin port and read from its journal."""

import http.server
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from bench.load import books
from bench.load.books import SLOTS_RULE, SPENT_RULE, Books
from gateway.journal.line import body_of, content_of
from gateway.record import Kind, Record


@contextmanager
def admin(folder: Path, *taken: int) -> Generator[Path, None, None]:
    """The gateway.yaml of an admin port that tells of so many slots taken, one number after the other."""
    left = list(taken)

    class Told(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/v1/limits/explain?key=bench&model=bench-model"
            assert self.headers["authorization"] == "Bearer t0ken"
            rows = [
                {"rule": SPENT_RULE, "capacity": 1_000_000, "level": 999_580},
                {"rule": SLOTS_RULE, "capacity": 100, "level": 100 - (left.pop(0) if len(left) > 1 else left[0])},
            ]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"limits": rows}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Told) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        config = folder / "gateway.yaml"
        where = {"host": "127.0.0.1", "port": server.server_port, "token": "t0ken"}
        config.write_text(yaml.safe_dump({"admin": where, "state_dir": str(folder / "state")}))
        try:
            yield config
        finally:
            server.shutdown()
            thread.join()


def test_books_are_read_once_no_slot_is_taken(tmp_path: Path) -> None:
    with admin(tmp_path, 2, 1, 0) as config:
        assert books.read(config) == Books(spent_microusd=420, taken=0, recorded=0)


def test_a_slot_that_is_never_free_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "PATIENCE_S", 0.3)
    with admin(tmp_path, 1) as config:
        assert books.read(config).taken == 1


def test_outcomes_are_found_in_every_file_of_the_journal(tmp_path: Path) -> None:
    kinds = (Kind.DECISION, Kind.OUTCOME, Kind.OUTCOME, Kind.MODE)
    lines = b"\n".join(body_of(seq, content_of(Record(kind, "", 0))) for seq, kind in enumerate(kinds))
    for slot in ("w0", "w1"):
        folder = tmp_path / "journal" / slot
        folder.mkdir(parents=True)
        (folder / "0.log").write_bytes(lines)
    assert books.recorded(tmp_path) == 4
