"""A key file finds exactly the keys it was built from, and knows when it is damaged."""

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.keyfile import CorruptKeyFile, DuplicateKey, KeyFile, OversizeKey, build
from gateway.config.keys import KeyRecord


def record(name: str) -> KeyRecord:
    return KeyRecord(hashlib.sha256(name.encode()).digest(), name, "acme", labels={"app": "é"}, models=("a", "b*"))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 9, 1000])
def test_every_key_is_found_and_no_other(tmp_path: Path, count: int) -> None:
    records = [record(f"key{number}") for number in range(count)]
    header = build(tmp_path / "k", records)
    assert header.places >= 2 * count
    keys = KeyFile(tmp_path / "k", verify=True)
    assert len(keys) == count
    assert list(keys) == records
    assert [keys.find(each.digest) for each in records] == records
    assert keys.find(record("other").digest) is None
    keys.close()


DIGESTS = st.binary(min_size=32, max_size=32)
CLOSE = st.builds(lambda tail: bytes(8) + tail, st.binary(min_size=24, max_size=24))  # one prefix for all


@given(st.sets(DIGESTS | CLOSE, max_size=40), st.sets(DIGESTS | CLOSE, max_size=10))
def test_found_if_and_only_if_present(present: set[bytes], asked: set[bytes]) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "k"
        build(path, (KeyRecord(digest, digest.hex()) for digest in present))
        keys = KeyFile(path)
        for digest in present | asked:
            found = keys.find(digest)
            assert (found is not None) == (digest in present)
            assert found is None or found.id == digest.hex()
        keys.close()


def test_two_keys_with_one_secret_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    twins = [KeyRecord(bytes(32), "a"), KeyRecord(bytes(32), "b")]
    with pytest.raises(DuplicateKey, match="'a' and 'b'"):
        build(tmp_path / "k", twins)
    assert list(tmp_path.iterdir()) == []


def test_a_record_too_long_for_the_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OversizeKey, match="'a' takes"):
        build(tmp_path / "k", [KeyRecord(bytes(32), "a", labels={"x": "y" * (1 << 20)})])


def test_any_single_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "k"
    build(path, [record("a"), record("b")])
    good = path.read_bytes()
    header = range(56)  # the eight bytes behind are padding
    for at in [*header, *range(64, len(good), 7)]:
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(CorruptKeyFile):
            KeyFile(path, verify=True)


@pytest.mark.parametrize("length", [0, 10, 63, 64, 100])
def test_a_file_that_is_cut_short_is_never_mapped(tmp_path: Path, length: int) -> None:
    path = tmp_path / "k"
    build(path, [record("a")])
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CorruptKeyFile):
        KeyFile(path)


def test_a_full_table_ends_the_search(tmp_path: Path) -> None:
    path = tmp_path / "k"
    build(path, [record("a")])
    raw = bytearray(path.read_bytes())
    keys = KeyFile(path)
    for place in range(keys.header.places):
        at = keys.header.table_at + 16 * place
        raw[at : at + 16] = b"\x01" * 16
    keys.close()
    path.write_bytes(raw)
    assert KeyFile(path).find(record("other").digest) is None


def test_a_file_stays_readable_after_it_was_removed(tmp_path: Path) -> None:
    path = tmp_path / "k"
    build(path, [record("a")])
    keys = KeyFile(path)
    path.unlink()
    assert keys.find(record("a").digest) == record("a")
