"""A manifest that was acknowledged stays; one that was not leaves nothing that anybody trips over."""

import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from msgspec import structs

from gateway.journal import manifestlog
from gateway.journal.manifest import (
    FIRST_PREV,
    BadManifest,
    ChainEnd,
    Floor,
    Manifest,
    ManifestFloor,
    digest_of,
    lines,
    parse,
    sign,
)
from gateway.journal.manifestlog import ManifestLog
from gateway.journal.merkle import EMPTY_ROOT
from gateway.journal.signing import Signer
from gateway.units import US_PER_S

SIGNER = Signer(bytes(32))
NODE = "0" * 32
HEAD = sha256(b"head").hexdigest()
DAY_US = 86_400 * US_PER_S


@pytest.fixture(autouse=True)
def _closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every log that a test opens is closed at its end."""
    opened = list[ManifestLog]()
    real = ManifestLog.__init__

    def noted(log: ManifestLog, journal: Path) -> None:
        real(log, journal)
        opened.append(log)

    monkeypatch.setattr(ManifestLog, "__init__", noted)
    yield
    for log in opened:
        log.close()


def made(count: int, **changes: object) -> list[tuple[bytes, Manifest]]:
    """Manifests that follow each other; chain w0 gets a line with each."""
    told, prev = [], FIRST_PREV
    for n in range(count):
        manifest = Manifest(
            v=1, node=NODE, n=n, at_us=n, prev=prev, chains=(ChainEnd("w0", 1, 10 * n + 10, n, HEAD),),
            first={"w0": n}, leaves=1, root=EMPTY_ROOT.hex(), key="", sig="",
        )  # fmt: skip
        line = sign(structs.replace(manifest, **changes), SIGNER)
        told.append((line, parse(line)))
        prev = digest_of(line)
    return told


def written(journal: Path, manifests: list[tuple[bytes, Manifest]]) -> None:
    log = ManifestLog(journal)
    for line, manifest in manifests:
        log.append(line, manifest)
    log.close()


def files(journal: Path) -> list[str]:
    return sorted(path.name for path in (journal / "manifests").iterdir() if path.name != "lock")


def failing(*_: object) -> int:
    raise OSError(28, "No space left on device")


# --- as it goes -----------------------------------------------------------------------------------------------------


def test_manifests_are_appended_and_found_again(tmp_path: Path) -> None:
    three = made(3)
    log = ManifestLog(tmp_path)
    assert (log.last, log.last_line) == (None, b"")
    for line, manifest in three[:2]:
        log.append(line, manifest)
        assert (log.last, log.last_line) == (manifest, line)
    log.close()
    again = ManifestLog(tmp_path)
    assert (again.last, again.last_line) == (three[1][1], three[1][0])
    again.append(*three[2])
    again.close()
    assert list(lines(tmp_path)) == [line for line, _ in three]
    assert files(tmp_path) == ["0000000001.jsonl"]


def test_everything_is_for_this_user_alone(tmp_path: Path) -> None:
    written(tmp_path, made(1))
    assert (tmp_path / "manifests").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "manifests/0000000001.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_full_file_is_followed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    six = made(6)
    monkeypatch.setattr(manifestlog, "FILE_BYTES", 2 * len(six[0][0]) + 20)
    for manifest in six:  # a start in between changes nothing
        written(tmp_path, [manifest])
    assert files(tmp_path) == [f"000000000{number}.jsonl" for number in (1, 2, 3)]
    assert list(lines(tmp_path)) == [line for line, _ in six]


def test_a_day_has_a_file_of_its_own(tmp_path: Path) -> None:
    told = [made(1, at_us=at_us)[0] for at_us in (5, 5 + DAY_US - 1, 4, 5 + DAY_US, 6 + DAY_US, 5 + 2 * DAY_US)]
    for at, manifest in enumerate(told):
        written(tmp_path, [manifest])
        assert len(files(tmp_path)) == [1, 1, 1, 2, 2, 3][at]


def test_one_process_signs_at_a_time(tmp_path: Path) -> None:
    log = ManifestLog(tmp_path)
    with pytest.raises(BlockingIOError, match="another process is signing this journal"):
        ManifestLog(tmp_path)
    log.close()
    ManifestLog(tmp_path).close()


def test_one_that_cannot_be_opened_keeps_nobody_out(tmp_path: Path) -> None:
    written(tmp_path, made(1))
    path = tmp_path / "manifests/0000000001.jsonl"
    good = path.read_bytes()
    path.write_bytes(b"rubbish\nrubbish\n")
    with pytest.raises(BadManifest):
        ManifestLog(tmp_path)
    path.write_bytes(good)
    ManifestLog(tmp_path).close()


# --- a disk that fails ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", ["pwrite", "fdatasync"])
@pytest.mark.parametrize("truncate_too", [False, True])
def test_a_line_that_failed_did_not_happen_and_can_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str, truncate_too: bool
) -> None:
    two = made(2)
    log = ManifestLog(tmp_path)
    log.append(*two[0])
    with monkeypatch.context() as patch:
        patch.setattr(os, failure, failing)
        if truncate_too:
            patch.setattr(os, "ftruncate", failing)
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                log.append(*two[1])
        assert log.last_line == two[0][0]
    log.append(*two[1])
    assert list(lines(tmp_path)) == [line for line, _ in two]


def test_what_was_written_in_part_is_taken_back_or_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = made(2)
    real = os.pwrite

    def part(fd: int, data: bytes, offset: int) -> int:
        if len(data) < 50:
            raise OSError(28, "No space left on device")
        return real(fd, bytes(data)[: len(data) // 2], offset)

    log = ManifestLog(tmp_path)
    log.append(*two[0])
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", part)
        with pytest.raises(OSError, match="No space"):
            log.append(*two[1])
    assert (tmp_path / "manifests/0000000001.jsonl").read_bytes() == two[0][0] + b"\n"
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, bytes(data)[:7], offset))
    log.append(*two[1])
    assert list(lines(tmp_path)) == [line for line, _ in two]


def test_a_next_file_that_cannot_be_made_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = made(2)
    monkeypatch.setattr(manifestlog, "FILE_BYTES", 10)
    log = ManifestLog(tmp_path)
    log.append(*two[0])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(OSError, match="No space"):
            log.append(*two[1])
    log.append(*two[1])
    log.close()
    assert files(tmp_path) == ["0000000001.jsonl", "0000000002.jsonl"]
    assert ManifestLog(tmp_path).last == two[1][1]


# --- what a crash leaves --------------------------------------------------------------------------------------------


def test_a_torn_end_of_any_length_is_set_aside(tmp_path: Path) -> None:
    two = made(2)
    whole = two[0][0] + b"\n"
    for cut in range(1, len(two[1][0]) + 1):
        journal = tmp_path / str(cut)
        written(journal, two[:1])
        path = journal / "manifests/0000000001.jsonl"
        path.write_bytes(whole + two[1][0][:cut])
        log = ManifestLog(journal)
        assert (log.last, log.last_line, path.read_bytes()) == (two[0][1], two[0][0], whole)
        assert (journal / "manifests" / log.torn).read_bytes() == two[1][0][:cut]
        assert log.torn.startswith(f"torn-1-{len(whole)}-")
        log.append(*two[1])
        log.close()
        assert list(lines(journal)) == [line for line, _ in two]


@pytest.mark.parametrize("damage", [b"\0" * 300 + b"\n", b"\0" * 300, b"half a line\n"])
def test_a_last_line_that_never_reached_the_disk_is_set_aside(tmp_path: Path, damage: bytes) -> None:
    two = made(2)
    written(tmp_path, two[:1])
    path = tmp_path / "manifests/0000000001.jsonl"
    path.write_bytes(path.read_bytes() + damage)
    log = ManifestLog(tmp_path)
    assert log.last == two[0][1]
    assert (tmp_path / "manifests" / log.torn).read_bytes() == damage
    log.append(*two[1])
    assert list(lines(tmp_path)) == [line for line, _ in two]


def test_a_first_manifest_that_was_torn_is_signed_anew(tmp_path: Path) -> None:
    (line, manifest), *_ = made(1)
    written(tmp_path, [(line, manifest)])
    path = tmp_path / "manifests/0000000001.jsonl"
    path.write_bytes(line[:100])
    log = ManifestLog(tmp_path)
    assert log.last is None
    log.append(line, manifest)
    assert list(lines(tmp_path)) == [line]


def test_a_new_file_that_is_empty_or_torn_goes_on_from_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    three = made(3)
    monkeypatch.setattr(manifestlog, "FILE_BYTES", 2 * len(three[0][0]) + 20)
    written(tmp_path, three)
    path = tmp_path / "manifests/0000000002.jsonl"
    for left in (b"", three[2][0][:70]):
        path.write_bytes(left)
        log = ManifestLog(tmp_path)
        assert log.last == three[1][1]
        log.append(*three[2])
        log.close()
        assert list(lines(tmp_path)) == [line for line, _ in three]


def test_damage_that_no_crash_does_is_not_repaired(tmp_path: Path) -> None:
    three = [line for line, _ in made(3)]
    folder = tmp_path / "manifests"
    folder.mkdir()
    path = folder / "0000000001.jsonl"
    for content in (
        three[0] + b"\nrubbish\n" + three[2][:50],
        three[0] + b"\nrubbish\nrubbish\n",
        three[0].replace(b'"n":0', b'"n":1') + b"\nrubbish\n",
    ):
        path.write_bytes(content)
        with pytest.raises(BadManifest, match=r"0000000001\.jsonl is damaged.*gateway audit verify"):
            ManifestLog(tmp_path)
        assert path.read_bytes() == content
    assert files(tmp_path) == ["0000000001.jsonl"]


def test_damage_in_the_file_before_an_empty_one_is_not_repaired(tmp_path: Path) -> None:
    written(tmp_path, made(1))
    (tmp_path / "manifests/0000000001.jsonl").write_bytes(b"rubbish\n")
    (tmp_path / "manifests/0000000002.jsonl").touch()
    with pytest.raises(BadManifest, match=r"0000000001\.jsonl is damaged"):
        ManifestLog(tmp_path)


def test_a_manifest_of_a_newer_build_is_never_cut_off(tmp_path: Path) -> None:
    written(tmp_path, made(1))
    path = tmp_path / "manifests/0000000001.jsonl"
    path.write_bytes(path.read_bytes() + b'{"v":2}\n')
    before = path.read_bytes()
    with pytest.raises(BadManifest, match="use a newer build"):
        ManifestLog(tmp_path)
    assert path.read_bytes() == before


def test_a_last_manifest_counts_once_it_is_known_to_be_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, made(1))  # by a process that may have been killed before it synced
    synced = list[str]()
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(Path(f"/proc/self/fd/{fd}").readlink().name))
    ManifestLog(tmp_path).close()
    assert synced == ["0000000001.jsonl", "manifests"]


class Died(BaseException):
    """Stands for a power cut: nothing after it happens."""


def before_each(real: Callable[..., object], die: Callable[[], None]) -> Callable[..., object]:
    def step(*args: object) -> object:
        die()
        return real(*args)

    return step


def test_dying_anywhere_in_a_repair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = made(2)
    for die_at in range(1, 9):
        journal = tmp_path / str(die_at)
        written(journal, two[:1])
        path = journal / "manifests/0000000001.jsonl"
        path.write_bytes(path.read_bytes() + two[1][0][:60])
        count = iter(range(1, 100))

        def die(count: Iterator[int] = count, die_at: int = die_at) -> None:
            if next(count) == die_at:
                raise Died

        with monkeypatch.context() as patch:
            for name in ("fsync", "ftruncate"):
                patch.setattr(os, name, before_each(getattr(os, name), die))
            patch.setattr(Path, "replace", before_each(Path.replace, die))
            try:
                ManifestLog(journal).close()
            except Died:
                assert die_at <= 6
            else:
                assert die_at > 6
        log = ManifestLog(journal)
        assert log.last == two[0][1]
        torn = [name for name in files(journal) if name.startswith("torn-")]
        assert len(torn) == 1
        assert (journal / "manifests" / torn[0]).read_bytes() == two[1][0][:60]


# --- retention ------------------------------------------------------------------------------------------------------


@pytest.fixture
def five_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ManifestLog:
    """Ten manifests, two a file: number n covers chain w0 up to line n."""
    ten = made(10)
    monkeypatch.setattr(manifestlog, "FILE_BYTES", 2 * len(ten[0][0]) + 20)
    written(tmp_path, ten)
    return ManifestLog(tmp_path)


@pytest.mark.parametrize(("first_kept", "expected"), [(0, None), (1, None), (2, 2), (3, 2), (4, 4), (8, 8), (10, 8)])
def test_manifests_are_needed_while_a_line_they_cover_is_kept(
    five_files: ManifestLog, first_kept: int, expected: int | None
) -> None:
    floor = five_files.floor_over({"w0": Floor("w0", 1, first_kept, HEAD)})
    if expected is None:
        assert floor is None
    else:
        line, manifest = made(10)[expected]
        assert floor == ManifestFloor(expected, parse(line).prev)
        assert manifest.n == expected


def test_a_chain_of_which_nothing_was_dropped_keeps_them_all(five_files: ManifestLog) -> None:
    assert five_files.floor_over({"w1": Floor("w1", 1, 10, HEAD)}) is None


def test_what_is_below_the_floor_goes_with_what_was_torn_there(five_files: ManifestLog, tmp_path: Path) -> None:
    for name in ("torn-1-20-aaaaaaaa", "torn-3-20-aaaaaaaa", "torn-11-20-aaaaaaaa"):
        (tmp_path / "manifests" / name).touch()
    floor = five_files.floor_over({"w0": Floor("w0", 1, 5, HEAD)})
    assert floor is not None
    for _ in range(2):
        five_files.drop_below(floor)
        assert files(tmp_path) == [
            "0000000003.jsonl", "0000000004.jsonl", "0000000005.jsonl", "torn-11-20-aaaaaaaa", "torn-3-20-aaaaaaaa",
        ]  # fmt: skip
    assert [parse(line).n for line in lines(tmp_path)] == [4, 5, 6, 7, 8, 9]
    five_files.drop_below(ManifestFloor(99, HEAD))
    assert [parse(line).n for line in lines(tmp_path)] == [8, 9]  # the newest file is never dropped
