"""What a repair set aside is compared with what it said, and nothing else is."""

import hashlib
import json
from pathlib import Path

import pytest

from gateway.journal.findings import Fault
from gateway.journal.torn import Cut, changed, changed_manifests, cut_of
from gateway.record import Kind, Record

DIGEST = hashlib.sha256(b"torn").hexdigest()
TOLD = {(3, 70, DIGEST)}


def repaired(subject: str, detail: str) -> Record:
    return Record(Kind.CHECKPOINT, "", 0, action="repaired", subject=subject, detail=detail)


def test_what_a_repair_tells() -> None:
    detail = {"cut_bytes": 4, "cut_sha256": DIGEST, "after_seq": 6, "offset": 70}
    assert cut_of(repaired("w0/3", json.dumps(detail))) == Cut(3, 70, DIGEST)
    assert cut_of(repaired("w0/3", json.dumps(detail | {"signed_lost": 5}))).signed_lost == 5


@pytest.mark.parametrize(
    ("subject", "detail"),
    [
        ("w0", "{}"),
        ("w0/x", "{}"),
        ("w0/3", "[]"),
        ("w0/3", "x"),
        ("w0/3", '{"offset":"x","cut_sha256":""}'),
        ("w0/3", '{"offset":1e999,"cut_sha256":""}'),
        ("w0/3", f'{{"offset":{"9" * 5000},"cut_sha256":""}}'),
        ("w0/3", "[" * 200_000),
        ("w0/" + "9" * 5000, '{"offset":1,"cut_sha256":""}'),
    ],
)
def test_a_repair_that_cannot_be_understood_fits_nothing(subject: str, detail: str) -> None:
    assert cut_of(repaired(subject, detail)) == Cut(0, -1, "")


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    directory = tmp_path / "w0"
    directory.mkdir()
    return directory


@pytest.mark.parametrize("name", ["torn-3-70", "torn-3-70.1"])
def test_it_is_what_it_was(chain: Path, name: str) -> None:
    (chain / name).write_bytes(b"torn")
    assert list(changed(chain.parent, "w0", TOLD, 1)) == []


@pytest.mark.parametrize(("name", "content"), [("torn-3-70", b"tore"), ("torn-3-71", b"torn"), ("torn-4-70", b"torn")])
def test_it_is_not(chain: Path, name: str, content: bytes) -> None:
    (chain / name).write_bytes(content)
    (finding,) = changed(chain.parent, "w0", TOLD, 1)
    assert (finding.fault, finding.chain, finding.segment) == (Fault.TORN, "w0", int(name[5]))


@pytest.mark.parametrize("name", ["torn-3-70.new", "torn.draft", "torn-2-70"])
def test_what_is_not_told_yet_or_was_told_in_a_dropped_segment(chain: Path, name: str) -> None:
    (chain / name).write_bytes(b"anything")
    assert list(changed(chain.parent, "w0", TOLD, 3)) == []


def test_of_the_manifests(tmp_path: Path) -> None:
    directory = tmp_path / "manifests"
    directory.mkdir()
    assert list(changed_manifests(tmp_path)) == []
    torn = directory / f"torn-2-100-{DIGEST[:8]}"
    torn.write_bytes(b"torn")
    assert list(changed_manifests(tmp_path)) == []
    torn.write_bytes(b"tore")
    assert [finding.fault for finding in changed_manifests(tmp_path)] == [Fault.TORN]
