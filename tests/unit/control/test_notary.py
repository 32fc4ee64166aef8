"""What is new is signed each second and then readable; what fails changes nothing and is done next time."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.control import notary as module
from gateway.control.notary import Notary
from gateway.control.pace import Pace
from gateway.journal import layout, manifestlog, tail
from gateway.journal.manifest import ChainEnd, Floor, Manifest, fault_after, is_signed, lines, parse
from gateway.journal.merkle import EMPTY_ROOT, root_of
from gateway.journal.read import Place
from gateway.journal.signing import load_signer, public_keys
from tests.fakes.chain_files import ChainFiles


class Scene:
    """A journal, its keys, and a clock that stands still."""

    def __init__(self, directory: Path) -> None:
        self.journal = directory / "journal"
        self.keys = directory / "signing"
        self.now_s = 1000.0
        self.now_us = 1_800_000_000_000_000
        self.node = layout.ensure_node(self.journal)
        self.w0, self.w1, self.control = (self.chain(name) for name in ("w0", "w1", "control"))
        self.notaries: list[Notary] = []

    def chain(self, name: str) -> ChainFiles:
        return ChainFiles(self.journal, name, self.node)

    def notary(self) -> Notary:
        made = Notary(self.journal, self.keys, lambda: self.now_us, lambda: self.now_s)
        self.notaries.append(made)
        return made

    def manifests(self) -> list[Manifest]:
        """All there are, every one of them checked against the keys and the one before it."""
        found = list(lines(self.journal))
        keys = public_keys(self.keys)
        told = [parse(line) for line in found]
        assert all(is_signed(each, line, keys[each.key]) for each, line in zip(told, found, strict=True))
        pairs = zip(told, found, told[1:], strict=False)
        assert [fault_after(*pair) for pair in pairs] == [""] * (len(told) - 1)
        return told


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    for notary in made.notaries:
        notary.close()


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


# --- what is signed -------------------------------------------------------------------------------------------------


def test_the_first_manifest_covers_what_is_there(scene: Scene) -> None:
    scene.w0.append(3)
    scene.control.append(2)
    notary = scene.notary()
    assert (notary.signed, notary.head_seq) == ({}, {})
    notary.turn()
    (manifest,) = scene.manifests()
    assert (manifest.n, manifest.node, manifest.at_us) == (0, scene.node, scene.now_us)
    assert [end.chain for end in manifest.chains] == ["w0", "control"]  # w1 has no line yet
    assert manifest.first == {"w0": 0, "control": 0}
    assert manifest.leaves == 5
    assert manifest.root == root_of(scene.w0.leaves + scene.control.leaves).hex()
    assert notary.signed == {
        "w0": Place(1, scene.w0.path.stat().st_size),
        "control": Place(1, scene.control.path.stat().st_size),
    }
    assert notary.head_seq == {"w0": 2, "control": 1}
    assert (notary.manifests, notary.lines, notary.failures, notary.last_signed_us) == (1, 5, 0, scene.now_us)
    assert notary.problem == ""


def test_only_what_is_new_is_in_the_next(scene: Scene) -> None:
    scene.w0.append(3)
    notary = scene.notary()
    notary.turn()
    scene.w0.append(1)
    scene.w1.append(2)
    scene.chain("w10").append(1)
    notary.turn()
    manifest = scene.manifests()[1]
    assert [end.chain for end in manifest.chains] == ["w0", "w1", "w10"]
    assert manifest.first == {"w0": 3, "w1": 0, "w10": 0}
    assert manifest.leaves == 4
    assert [end.seq for end in manifest.chains] == [3, 1, 0]


def test_when_nothing_happens_that_is_signed_once_a_minute(scene: Scene) -> None:
    scene.w0.append(1)
    notary = scene.notary()
    for moment_s in (0, 1, 59, 60, 61, 119, 120):
        scene.now_s = 1000 + moment_s
        notary.turn()
    told = scene.manifests()
    assert len(told) == 3
    assert [(each.leaves, each.first, each.root) for each in told[1:]] == [(0, {}, EMPTY_ROOT.hex())] * 2
    assert {each.chains for each in told} == {told[0].chains}


def test_a_journal_without_a_line_is_signed_as_well(scene: Scene) -> None:
    notary = scene.notary()
    notary.turn()
    (manifest,) = scene.manifests()
    assert (manifest.chains, manifest.leaves) == ((), 0)


def test_the_last_one_is_signed_when_it_closes_and_covers_everything(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TURN_BYTES", 1)
    monkeypatch.setattr(tail, "CHUNK_BYTES", 64)
    scene.w0.append(1)
    notary = scene.notary()
    notary.turn()
    scene.w0.append(20)
    notary.close()
    told = scene.manifests()
    assert told[-1].chains[0].seq == 20
    assert len(told) > 5
    count = len(told)
    scene.w0.append(1)
    notary.turn()
    notary.close()
    assert len(scene.manifests()) == count  # closed is closed


def test_closing_says_so_when_nothing_is_new(scene: Scene) -> None:
    notary = scene.notary()
    notary.turn()
    notary.close()
    assert [each.leaves for each in scene.manifests()] == [0, 0]


def test_closing_takes_no_longer_than_it_may(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURN_BYTES", 1)
    monkeypatch.setattr(module, "CLOSE_S", 0)
    monkeypatch.setattr(tail, "CHUNK_BYTES", 64)
    scene.w0.append(5)
    scene.notary().close()
    assert [each.leaves for each in scene.manifests()] == [1]


def test_a_long_turn_is_cut_into_short_ones_and_says_there_is_more(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TURN_BYTES", 1)
    monkeypatch.setattr(tail, "CHUNK_BYTES", 64)
    scene.w0.append(2)
    scene.w1.append(4)
    notary = scene.notary()
    told = []
    for _ in range(6):
        notary.turn()
        told.append((notary.behind, dict(notary.head_seq)))
    assert told[0] == (True, {"w0": 0, "w1": 0})  # no chain waits for another
    assert told[3] == (True, {"w0": 1, "w1": 3})
    assert told[4] == told[5] == (False, {"w0": 1, "w1": 3})
    scene.manifests()


def test_it_pauses_while_turns_get_to_the_end_and_not_when_it_closes(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurried: list[bool] = []
    monkeypatch.setattr(Pace, "step", lambda pace: hurried.append(pace.hurried))
    monkeypatch.setattr(module, "TURN_BYTES", 2_000)
    monkeypatch.setattr(tail, "CHUNK_BYTES", 64)
    notary = scene.notary()
    for count, told in ((1, {False}), (30, {False}), (0, {True})):
        scene.w0.append(count)
        hurried.clear()
        notary.turn()
        assert set(hurried) == told
    while notary.behind:
        notary.turn()
    scene.w0.append(1)
    hurried.clear()
    notary.close()
    assert set(hurried) == {True}


def test_a_turn_that_takes_long_goes_on_without_pauses(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    hurried: list[bool] = []

    def step(pace: Pace) -> None:
        hurried.append(pace.hurried)
        scene.now_s += module.STEPS_S / 2

    monkeypatch.setattr(Pace, "step", step)
    monkeypatch.setattr(tail, "CHUNK_BYTES", 64)
    notary = scene.notary()
    for _ in range(2):
        scene.w0.append(3)
        hurried.clear()
        notary.turn()
        assert not notary.behind
        assert hurried == [False] * 3 + [True] * (len(hurried) - 3)
        assert len(hurried) > 3


def test_what_one_turn_reads_is_shared_by_the_chains(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.w0.append(20)
    scene.w1.append(20)
    size = len(scene.w0.lines[0])
    monkeypatch.setattr(module, "TURN_BYTES", 8 * size)
    monkeypatch.setattr(tail, "CHUNK_BYTES", size)
    notary = scene.notary()
    notary.turn()
    assert notary.behind
    assert all(2 <= seq <= 4 for seq in notary.head_seq.values())


def test_a_clock_that_steps_back_blocks_nothing(scene: Scene) -> None:
    notary = scene.notary()
    for now_us in (2_000_000, 1_000_000, -5):
        scene.now_us = now_us
        scene.w0.append(1)
        notary.turn()
    assert [each.at_us for each in scene.manifests()] == [2_000_000, 1_000_000, 0]


# --- a restart ------------------------------------------------------------------------------------------------------


def test_a_restart_goes_on_where_the_last_manifest_ends(scene: Scene) -> None:
    scene.w0.append(3)
    scene.w1.append(1)
    first = scene.notary()
    first.turn()
    first.close()
    scene.w0.append(2)
    again = scene.notary()
    again.turn()
    told = scene.manifests()
    assert told[-1].first == {"w0": 3}
    assert again.head_seq == {"w0": 4, "w1": 0}


def test_readers_may_go_on_before_anything_new_is_signed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.w0.append(3)
    first = scene.notary()
    first.turn()
    signed = first.signed
    first.close()
    again = scene.notary()
    monkeypatch.setattr(manifestlog.ManifestLog, "append", full)
    again.turn()
    assert again.signed == signed
    assert again.problem


def test_two_notaries_never_sign_side_by_side(scene: Scene) -> None:
    first, second = scene.notary(), scene.notary()
    first.turn()
    second.turn()
    assert "another process is signing this journal" in second.problem
    first.close()
    second.turn()
    assert second.problem == ""
    assert [each.n for each in scene.manifests()] == [0, 1, 2]


def test_a_torn_manifest_is_said_and_written_anew(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.w0.append(1)
    notary = scene.notary()
    notary.turn()
    notary.close()
    (path,) = layout.manifest_files(scene.journal)
    os.truncate(path, path.stat().st_size - 9)
    scene.notary().turn()
    assert "is kept as manifests/torn-1-" in caplog.text
    assert [each.n for each in scene.manifests()] == [0, 1]


# --- what goes wrong ------------------------------------------------------------------------------------------------


def test_without_a_journal_it_waits_for_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notary = Notary(tmp_path / "journal", tmp_path / "signing")
    for _ in range(3):
        notary.turn()
    assert "holds no journal" in notary.problem
    assert notary.failures == 3
    assert caplog.text.count("cannot be signed") == 1  # said once
    layout.ensure_node(tmp_path / "journal")
    notary.turn()
    assert notary.problem == ""
    assert "is signed again" in caplog.text
    notary.close()


@pytest.mark.parametrize("broken", ["pwrite", "fdatasync"])
def test_a_full_disk_changes_nothing_and_the_same_manifest_comes_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    scene.w0.append(1)
    notary = scene.notary()
    notary.turn()
    before = (notary.signed, notary.head_seq, notary.last_signed_us)
    scene.w0.append(1)
    tried = list[bytes]()
    real = manifestlog.ManifestLog.append

    def append(log: manifestlog.ManifestLog, line: bytes, manifest: Manifest) -> None:
        tried.append(line)
        with pytest.MonkeyPatch.context() as patch:
            if len(tried) < 3:
                patch.setattr(os, broken, full)
            real(log, line, manifest)

    monkeypatch.setattr(manifestlog.ManifestLog, "append", append)
    for _ in range(2):
        scene.now_us += 1_000_000
        notary.turn()
        assert (notary.signed, notary.head_seq, notary.last_signed_us) == before
        assert f"{layout.MANIFESTS} cannot be written: No space left" in notary.problem
        scene.w0.append(1)
    behind = []
    for _ in range(2):
        notary.turn()
        behind.append(notary.behind)
    assert behind == [True, False]  # what came meanwhile is signed at once
    assert notary.head_seq == {"w0": 3}
    assert notary.failures == 2
    assert tried[0] == tried[1] == tried[2] != tried[3]
    assert [each.leaves for each in scene.manifests()] == [1, 1, 2]


def test_the_disk_under_one_chain_does_not_stop_the_others(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.w0.append(1)
    scene.w1.append(1)
    notary = scene.notary()
    notary.turn()
    scene.w0.append(1)
    scene.w1.append(1)
    real = tail._File.sync

    def sync(file: tail._File) -> None:
        if "w0" in file._path.parts:
            raise OSError(5, "Input/output error")
        real(file)

    with monkeypatch.context() as patch:
        patch.setattr(tail._File, "sync", sync)
        notary.turn()
        assert notary.head_seq == {"w0": 0, "w1": 1}
        assert (notary.failures, notary.problem, notary.broken) == (1, "", {})
        scene.now_s += module.PATIENCE_S
        notary.turn()
        assert notary.broken == {"w0": "[Errno 5] Input/output error"}
    notary.turn()
    assert notary.head_seq == {"w0": 1, "w1": 1}
    assert notary.broken == {}
    assert [each.first for each in scene.manifests()] == [{"w0": 0, "w1": 0}, {"w1": 1}, {"w0": 1}]


def test_a_chain_that_was_tampered_with_is_reported_once_and_the_others_go_on(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.w0.append(2)
    scene.w1.append(1)
    notary = scene.notary()
    notary.turn()
    end = scene.manifests()[0].end_of("w0")
    good = scene.w0.path.read_bytes()
    scene.w0.append(1)
    whole = scene.w0.path.read_bytes()
    scene.w0.path.write_bytes(whole.replace(b'"w0-2"', b'"w9-2"'))
    for _ in range(4):
        scene.w1.append(1)
        notary.turn()
        scene.now_s += 2
    assert (scene.manifests()[-1].end_of("w0"), notary.head_seq["w1"]) == (end, 4)
    assert notary.broken == {"w0": f"segment 1, byte {len(good)}, line 2: it does not follow from the line before it"}
    assert caplog.text.count("chain w0 is signed no further: segment 1, byte") == 1
    scene.w0.path.write_bytes(whole)
    notary.turn()
    assert notary.broken == {}
    assert notary.head_seq["w0"] == 2
    assert "chain w0 goes on" in caplog.text
    scene.manifests()


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda line: line[:50], id="incomplete"),
        pytest.param(lambda line: b"x" + line[1:], id="changed"),
    ],
)
def test_a_segment_whose_first_line_is_not_right_does_not_stop_the_others(
    scene: Scene, spoil: Callable[[bytes], bytes]
) -> None:
    scene.w0.append(1)
    notary = scene.notary()
    notary.turn()
    end = scene.manifests()[0].end_of("w0")
    scene.w0.roll()
    (line,) = scene.w0.append(1)
    scene.w0.path.write_bytes(spoil(line))
    scene.w1.append(1)
    notary.turn()
    assert (notary.problem, notary.head_seq) == ("", {"w0": 0, "w1": 0})
    assert scene.manifests()[-1].end_of("w0") == end
    scene.w0.path.write_bytes(line)
    notary.turn()
    assert notary.head_seq == {"w0": 1, "w1": 0}
    assert notary.signed["w0"] == Place(2, len(line))
    scene.manifests()


def test_a_chain_that_is_repaired_at_once_is_no_news(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.w0.append(1)
    notary = scene.notary()
    notary.turn()
    whole = scene.w0.path.read_bytes()
    for _ in range(2):
        scene.w0.path.write_bytes(whole + b"\0" * 50 + b"\n")
        notary.turn()
        scene.now_s += module.PATIENCE_S - 0.1
        scene.w0.path.write_bytes(whole)
        notary.turn()
    assert (notary.broken, caplog.text) == ({}, "")


def test_a_chain_that_is_gone_keeps_its_place_in_the_manifest(scene: Scene) -> None:
    scene.w0.append(1)
    scene.w1.append(1)
    notary = scene.notary()
    notary.turn()
    scene.w0.path.unlink()
    scene.w0.path.parent.rmdir()
    scene.w1.append(1)
    notary.turn()
    scene.now_s += module.PATIENCE_S
    notary.turn()
    assert [end.seq for end in scene.manifests()[-1].chains] == [0, 1]
    assert notary.broken == {"w0": "segment 1 is gone"}


def test_what_contradicts_the_manifests_is_never_signed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.w0.append(1)
    notary = scene.notary()
    notary.turn()
    scene.w0.append(1)
    with monkeypatch.context() as patch:
        patch.setattr(tail.Reached, "end_of", lambda at, chain: ChainEnd(chain, 0, 0, at.seq, at.head.hex()))
        notary.turn()
        assert "contradicts what was signed: chain w0 has new lines, and its end goes back" in notary.problem
    notary.turn()
    assert [each.leaves for each in scene.manifests()] == [1, 1]


# --- keys -----------------------------------------------------------------------------------------------------------


def test_a_change_of_keys(scene: Scene) -> None:
    scene.w0.append(1)
    notary = scene.notary()
    notary.turn()
    old = load_signer(scene.keys).key_id
    notary.rotate()
    notary.turn()  # nothing else is new
    new = load_signer(scene.keys).key_id
    scene.w0.append(1)
    notary.turn()
    notary.turn()
    told = scene.manifests()
    assert [each.key for each in told] == [old, old, new]
    assert [each.next and each.next.key for each in told] == [None, new, None]
    assert not (scene.keys / f"{old}.key").exists()
    assert (scene.keys / f"{old}.pub").exists()


@pytest.mark.parametrize("restarted", [False, True])
def test_a_change_of_keys_that_fails_after_its_manifest_is_finished(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, restarted: bool
) -> None:
    notary = scene.notary()
    notary.turn()
    old = load_signer(scene.keys).key_id
    notary.rotate()
    with monkeypatch.context() as patch:
        patch.setattr(module, "switch", lambda *_: full())
        notary.turn()
    assert "No space left" in notary.problem
    assert load_signer(scene.keys).key_id == old
    if restarted:
        monkeypatch.setattr(notary, "_attempt", lambda **_: None)
        notary.close()
        notary = scene.notary()
    scene.w0.append(1)
    notary.turn()
    assert notary.problem == ""
    assert scene.manifests()[-1].key == load_signer(scene.keys).key_id != old
    assert len(list(scene.keys.glob("*.key"))) == 1


def test_a_change_of_keys_whose_manifest_fails_uses_the_same_next_key(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    notary = scene.notary()
    notary.turn()
    notary.rotate()
    with monkeypatch.context() as patch:
        patch.setattr(manifestlog.ManifestLog, "append", full)
        notary.turn()
    notary.turn()
    (change,) = [each for each in scene.manifests() if each.next]
    assert change.next is not None
    assert load_signer(scene.keys).key_id == change.next.key
    assert len(public_keys(scene.keys)) == 2


def test_a_key_that_does_not_follow_signs_nothing(scene: Scene, tmp_path: Path) -> None:
    scene.w0.append(1)
    first = scene.notary()
    first.turn()
    first.close()
    signed = scene.manifests()
    scene.keys.rename(tmp_path / "copy")
    other = scene.notary()
    other.turn()
    assert ".pub is missing" in other.problem
    load_signer(scene.keys)  # as a worker may at any time
    public = f"{signed[0].key}.pub"
    (tmp_path / "copy" / public).rename(scene.keys / public)
    other.turn()
    assert "must sign next, and the current one" in other.problem
    assert "restore that directory from a copy" in other.problem
    assert len(list(lines(scene.journal))) == len(signed)


def test_another_nodes_manifests_are_not_gone_on_from(scene: Scene) -> None:
    scene.w0.append(1)
    first = scene.notary()
    first.turn()
    first.close()
    (scene.journal / "node.json").write_text(f'{{"v": 1, "node": "{"0" * 32}"}}')
    other = scene.notary()
    other.turn()
    assert "manifest 1 is not this node's" in other.problem
    assert other.signed == {}


def test_a_forged_last_manifest_is_not_gone_on_from(scene: Scene) -> None:
    scene.w0.append(1)
    first = scene.notary()
    first.turn()
    first.close()
    (path,) = layout.manifest_files(scene.journal)
    text = path.read_bytes()
    at = text.rindex(b'"sig":"') + 7
    path.write_bytes(text[:at] + (b"1" if text[at : at + 1] == b"0" else b"0") + text[at + 1 :])
    other = scene.notary()
    other.turn()
    assert "its signature is wrong" in other.problem
    assert other.signed == {}
    path.write_bytes(text)
    other.turn()
    assert other.problem == ""


# --- retention ------------------------------------------------------------------------------------------------------


def floor_of(chain: ChainFiles, segment: int, seq: int) -> Floor:
    return Floor(chain.chain, segment, seq, chain.lines[seq - 1][-67:-3].decode())


def test_a_floor_is_signed_before_it_is_told(scene: Scene) -> None:
    for _ in range(3):
        scene.w0.append(2)
        scene.w0.roll()
    scene.w0.append(1)
    notary = scene.notary()
    notary.turn()
    notary.raise_floor([floor_of(scene.w0, 2, 2)])
    assert notary.floors == {}
    notary.turn()
    assert notary.floors == {"w0": floor_of(scene.w0, 2, 2)}
    notary.turn()
    notary.raise_floor([floor_of(scene.w0, 3, 4)])
    notary.raise_floor([floor_of(scene.w0, 2, 2)])  # back: nothing
    notary.turn()
    notary.turn()
    told = scene.manifests()
    assert [each.floors for each in told] == [(), (floor_of(scene.w0, 2, 2),), (floor_of(scene.w0, 3, 4),)]
    for number in (1, 2):
        layout.segment_path(scene.journal, "w0", number).unlink()
    notary.close()
    again = scene.notary()
    again.turn()
    assert again.floors == {"w0": floor_of(scene.w0, 3, 4)}
    assert scene.manifests()[-1].floors == told[-1].floors
    scene.now_s += 60
    again.turn()
    scene.now_s += 60
    again.turn()
    assert again.broken == {}


def test_a_whole_chain_may_be_dropped_and_go_on(scene: Scene) -> None:
    scene.w0.append(2)
    notary = scene.notary()
    notary.turn()
    notary.raise_floor([floor_of(scene.w0, 2, 2)])
    notary.turn()
    scene.w0.path.unlink()
    scene.w0.roll()
    scene.w0.append(1)
    notary.turn()
    scene.now_s += 60
    notary.turn()
    assert (notary.broken, notary.head_seq) == ({}, {"w0": 2})


def test_no_floor_above_what_is_signed(scene: Scene) -> None:
    scene.w0.append(2)
    notary = scene.notary()
    for floor in (Floor("w0", 2, 2, "0" * 64), Floor("w9", 2, 1, "0" * 64)):
        with pytest.raises(ValueError, match="is not signed up to line"):
            notary.raise_floor([floor])
    notary.turn()
    with pytest.raises(ValueError, match="w0 is not signed up to line 3"):
        notary.raise_floor([Floor("w0", 2, 3, "0" * 64)])


def test_a_floor_whose_manifest_fails_is_not_told(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.w0.append(2)
    scene.w0.roll()
    scene.w0.append(1)
    notary = scene.notary()
    notary.turn()
    notary.raise_floor([floor_of(scene.w0, 2, 2)])
    with monkeypatch.context() as patch:
        patch.setattr(manifestlog.ManifestLog, "append", full)
        notary.turn()
        assert notary.floors == {}
    notary.turn()
    assert list(notary.floors) == ["w0"]


def test_manifests_whose_lines_are_gone_go_too_once_that_is_signed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(manifestlog, "FILE_BYTES", 100)  # one a file
    notary = scene.notary()
    for _ in range(4):
        scene.w0.append(2)
        scene.w0.roll()
        notary.turn()
    notary.raise_floor([floor_of(scene.w0, 3, 4)])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", full)
        notary.turn()
    assert "manifests below number 2 cannot be removed" in caplog.text
    assert notary.problem == ""
    assert len(layout.manifest_files(scene.journal)) == 5
    notary.close()
    again = scene.notary()
    again.turn()
    told = scene.manifests()
    assert told[0].n == 2
    assert told[-1].manifest_floor is not None
    assert (told[-1].manifest_floor.n, told[-1].manifest_floor.prev) == (2, told[0].prev)
