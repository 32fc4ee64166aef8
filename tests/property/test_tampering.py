"""Any single byte, of any file of a journal, changed, put in or taken out, is found by who has the public key.

Not covered, because they are no part of what is recorded: `lock` (empty, locked and never read), `holds.json` (which
an operator edits), and whatever has a name that nothing here reads. Covered with them all: node.json, every segment,
every manifest, the bytes that repairs set aside, and the empty segment that is made before it is needed.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.journal import layout
from gateway.journal.trust import Keys, read_keys
from gateway.journal.verify import verify
from tests.fakes.a_journal import AJournal, a_whole_journal

Tampered = tuple[Path, bytes]


def never(_seconds: float) -> None:
    """Wait for no writer: there is none."""


def floored(state_dir: Path) -> AJournal:
    """A whole journal whose oldest segments and manifests were dropped."""
    made = a_whole_journal(state_dir)
    made.drop("w0", 2)
    made.drop_manifests(2)
    made.path("w0", 4).touch()  # made ahead of need
    return made


@pytest.fixture(scope="module", params=[a_whole_journal, floored], ids=["from the beginning", "from a floor"])
def made(request: pytest.FixtureRequest) -> Iterator[AJournal]:
    with TemporaryDirectory() as directory:
        yield request.param(Path(directory) / "state")


def files(made: AJournal) -> list[Path]:
    return sorted(path for path in made.journal.rglob("*") if path.is_file())


def found(made: AJournal, path: Path, content: bytes, keys: Keys) -> bool:
    """Whether the journal with this file's content instead of its own does not pass; it is put back afterwards."""
    kept = path.read_bytes()
    path.write_bytes(content)
    try:
        return not verify(made.journal, keys, pause=never).ok
    finally:
        path.write_bytes(kept)


def test_untouched_it_passes(made: AJournal) -> None:
    assert verify(made.journal, read_keys([made.public])).verdict == "verified"
    assert {path.parent.name for path in files(made)} == {"journal", "manifests", "w0", "w1", "control"}


@given(data=st.data(), where=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_a_changed_byte_is_found(made: AJournal, data: st.DataObject, where: float, byte: int) -> None:
    path = data.draw(st.sampled_from([path for path in files(made) if path.stat().st_size]))
    content = bytearray(path.read_bytes())
    at = int(where * len(content))
    content[at] ^= byte or 1
    assert found(made, path, bytes(content), read_keys([made.public])), (path.name, at)


@given(data=st.data(), where=st.floats(0, 1), byte=st.one_of(st.integers(0, 255), st.sampled_from(list(b'\n \t0"}a'))))
def test_a_byte_put_in_is_found(made: AJournal, data: st.DataObject, where: float, byte: int) -> None:
    path = data.draw(st.sampled_from(files(made)))
    content = path.read_bytes()
    at = int(where * len(content))
    changed = content[:at] + bytes([byte]) + content[at:]
    assert found(made, path, changed, read_keys([made.public])), (path.name, at)


@given(data=st.data(), where=st.floats(0, 1, exclude_max=True))
def test_a_byte_taken_out_is_found(made: AJournal, data: st.DataObject, where: float) -> None:
    path = data.draw(st.sampled_from([path for path in files(made) if path.stat().st_size]))
    content = path.read_bytes()
    at = int(where * len(content))
    assert found(made, path, content[:at] + content[at + 1 :], read_keys([made.public])), (path.name, at)


@pytest.mark.parametrize("last", [1, 2, 3])
def test_the_ends_of_every_file_are_covered(made: AJournal, last: int) -> None:
    keys = read_keys([made.public])
    for path in files(made):
        content = path.read_bytes()
        if content:
            assert found(made, path, content[:-last], keys), path
            assert found(made, path, content[last:], keys), path
        assert found(made, path, content + b"\n" * last, keys), path


def test_every_byte_of_the_last_manifest_is_covered(made: AJournal) -> None:
    """Nothing follows it, so that its signature alone vouches for it."""
    path = layout.manifest_files(made.journal)[-1]
    content = path.read_bytes()
    start = content.rindex(b"\n", 0, -1) + 1
    for at in range(start, len(content)):
        flipped = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        assert found(made, path, flipped, read_keys([made.public])), at


def test_a_removed_file_is_found(made: AJournal, tmp_path: Path) -> None:
    keys = read_keys([made.public])
    for path in files(made):
        if path.stat().st_size and not path.name.startswith("torn-"):
            aside = tmp_path / "aside"
            shutil.move(path, aside)
            assert not verify(made.journal, keys, pause=never).ok, path
            shutil.move(aside, path)
