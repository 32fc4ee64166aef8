"""What could not be taken is kept, whole and on the disk, whatever happens while it is being put there."""

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from gateway.control.readers import aside
from gateway.control.readers.aside import Aside
from gateway.journal.read import Entry, Place
from gateway.record import Kind, Record

NODE = "a" * 32


def entry(raw: bytes = b'{"seq":7}\n', seq: int = 7) -> Entry:
    return Entry("w0", 3, seq, raw, Record(Kind.OUTCOME, "x", 0), Place(3, 100))


def kept(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_a_record_is_kept_with_its_id_and_the_reason(tmp_path: Path) -> None:
    put = Aside(tmp_path, "usage", NODE)
    put.add(entry(), "no number")
    (found,) = kept(tmp_path / "poison" / "usage.jsonl")
    assert found.pop("at_us") > 10**15
    assert found == {"id": f"{NODE}/w0/3/7", "segment": 3, "end": 100, "reason": "no number", "raw": '{"seq":7}'}
    assert put.count == 1


def test_bytes_that_are_no_text_are_kept_too(tmp_path: Path) -> None:
    put = Aside(tmp_path, "usage", NODE)
    put.add(entry(b"\xff\xfe\n", -1), "no line")
    (found,) = kept(put.path)
    assert base64.b64decode(found["raw_base64"]) == b"\xff\xfe\n"


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    put = Aside(tmp_path, "usage", NODE)
    put.add(entry(), "")
    assert put.path.stat().st_mode & 0o777 == 0o600
    assert put.path.parent.stat().st_mode & 0o777 == 0o700


def test_a_large_file_keeps_names_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside, "MAX_BYTES", 300)
    put = Aside(tmp_path, "usage", NODE)
    put.add(entry(b"x" * 200 + b"\n"), "first")
    put.add(entry(b"x" * 200 + b"\n"), "second")
    first, second = kept(put.path)
    assert "raw" in first
    assert "raw" not in second
    assert second["reason"] == "second"


def test_a_line_cut_short_by_a_crash_spoils_no_other(tmp_path: Path) -> None:
    put = Aside(tmp_path, "usage", NODE)
    put.add(entry(), "first")
    whole = put.path.read_bytes()
    put.path.write_bytes(whole + whole[:20])
    put.add(entry(), "second")
    lines = put.path.read_bytes().splitlines()
    assert [json.loads(lines[0])["reason"], json.loads(lines[2])["reason"]] == ["first", "second"]


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_disk_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    put = Aside(tmp_path, "usage", NODE)
    put.add(entry(), "first")
    before = put.path.read_bytes()
    real = os.write
    written: list[int] = []

    def failing(descriptor: int, data: bytes = b"") -> int:
        if call == "write" and not written:
            written.append(real(descriptor, data[:5]))
            return written[0]
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, failing)
        with pytest.raises(OSError, match="No space"):
            put.add(entry(), "second")
    assert put.path.read_bytes() == before
    assert put.count == 1
    put.add(entry(), "second")
    assert [line["reason"] for line in kept(put.path)] == ["first", "second"]
