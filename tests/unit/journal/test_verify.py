"""Every way of tampering with a journal is found, and named; what is only unusual passes."""

import json
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs

from gateway.journal import layout
from gateway.journal.findings import Fault, Report
from gateway.journal.line import genesis, leaf_of, line_of, link, parse
from gateway.journal.manifest import digest_of, encode, sign
from gateway.journal.manifest import parse as parse_manifest
from gateway.journal.manifestscan import Checkpoint, read_checkpoint
from gateway.journal.merkle import root_of
from gateway.journal.signing import Signer
from gateway.journal.trust import read_keys
from gateway.journal.verify import verify
from gateway.record import Kind, Record
from tests.fakes.a_journal import NODE, AJournal, a_whole_journal

STRANGER = Signer(b"\x07" * 32)
OTHER_NODE = "0b" * 16


@pytest.fixture
def made(tmp_path: Path) -> AJournal:
    return a_whole_journal(tmp_path / "state")


def never(_seconds: float) -> None:
    """Wait for no writer: there is none."""


def checked(made: AJournal, since: Checkpoint | None = None, keys: tuple[str, ...] | None = None) -> Report:
    return verify(made.journal, read_keys(keys or (made.public,)), since, pause=never)


def faults(report: Report) -> list[tuple[Fault, str]]:
    return [(finding.fault, finding.where) for finding in report.findings]


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def rewrite(path: Path, change: Callable[[list[bytes]], None]) -> None:
    lines = lines_of(path)
    change(lines)
    path.write_bytes(b"".join(lines))


def without(at: int) -> Callable[[list[bytes]], None]:
    """Take a line away."""

    def change(lines: list[bytes]) -> None:
        del lines[at]

    return change


def rehash(made: AJournal, chain: str, change: Callable[[bytes], bytes]) -> None:
    """Change bodies and make all hashes of the chain anew, as anybody can."""
    head = genesis(made.node, chain)
    for segment in layout.segments(made.journal, chain):
        path = made.path(chain, segment)
        lines = []
        for line in lines_of(path):
            body = change(parse(line).body)
            if b'"action":"segment"' in body:
                start = body.index(b'"prev":"') + 8
                body = body[:start] + head.hex().encode() + body[start + 64 :]
            head = link(head, leaf_of(body))
            lines.append(line_of(body, head))
        path.write_bytes(b"".join(lines))


# --- whole journals -------------------------------------------------------------------------------------------------


def test_a_whole_journal_is_verified(made: AJournal) -> None:
    report = checked(made)
    assert (report.verdict, report.findings, report.notes) == ("verified", [], [])
    assert [(chain.chain, chain.segments, chain.lines, chain.signed, chain.unsigned) for chain in report.chains] == [
        ("w0", 3, 13, 12, 0), ("w1", 2, 9, 8, 0), ("control", 1, 2, 1, 0),
    ]  # fmt: skip
    assert (report.manifests.first, report.manifests.last, report.manifests.count) == (0, 5, 6)
    assert report.size_bytes == sum(path.stat().st_size for path in made.journal.glob("*/0*") if "man" not in str(path))


def test_without_a_key_it_is_integrity_only(made: AJournal) -> None:
    report = verify(made.journal)
    assert (report.verdict, report.ok, report.manifests.signatures) == ("integrity only", True, 0)


def test_the_progress_is_told_to_its_end(made: AJournal) -> None:
    told: list[tuple[int, int]] = []
    verify(made.journal, progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == told[-1][1] == sum(path.stat().st_size for path in made.journal.glob("*/0*.jsonl"))


def test_any_chunk_size_gives_the_same(made: AJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = checked(made)
    for size in (1, 63, 64, 300):
        monkeypatch.setattr("gateway.journal.scan.CHUNK_BYTES", size)
        assert checked(made) == whole


def test_what_is_no_journal(tmp_path: Path) -> None:
    with pytest.raises(layout.NoJournal, match="holds no journal"):
        verify(tmp_path)
    with pytest.raises(layout.NoJournal, match="is no directory"):
        verify(tmp_path / "nowhere")


# --- chains ---------------------------------------------------------------------------------------------------------


def test_an_edited_line(made: AJournal) -> None:
    path = made.path("w0", 2)
    path.write_bytes(path.read_bytes().replace(b"x-w0-8", b"x-w0-9", 1))
    report = checked(made)
    assert faults(report) == [(Fault.LINK, "w0/2/8")]
    assert "this line was changed" in str(report.findings[0])
    assert [chain.whole for chain in report.chains] == [False, True, True]


def test_reordered_lines(made: AJournal) -> None:
    rewrite(made.path("w0", 1), lambda lines: lines.insert(3, lines.pop(2)))
    report = checked(made)
    assert faults(report) == [(Fault.NUMBER, "w0/1/2")]
    assert "line 2 should stand here, and 3 does" in report.findings[0].message


def test_a_line_deleted_in_the_middle(made: AJournal) -> None:
    rewrite(made.path("w0", 2), without(1))
    assert faults(checked(made)) == [(Fault.NUMBER, "w0/2/7")]


def test_a_line_put_in(made: AJournal) -> None:
    rewrite(made.path("w0", 2), lambda lines: lines.insert(2, lines[1]))
    report = checked(made)
    assert faults(report) == [(Fault.NUMBER, "w0/2/8")]
    assert "7 comes again" in report.findings[0].message


def test_a_tail_cut_by_whole_lines(made: AJournal) -> None:
    rewrite(made.path("w0", 3), without(-1))
    report = checked(made)
    assert faults(report) == [(Fault.CUT, "w0/3/12")]
    assert "signed its lines up to 12" in report.findings[0].message
    assert faults(verify(made.journal)) == faults(report)  # no key is needed to see that


def test_an_edit_with_all_hashes_made_anew(made: AJournal) -> None:
    rehash(made, "w0", lambda body: body.replace(b"x-w0-8", b"x-w0-9"))
    report = checked(made)
    assert faults(report) == [(Fault.REWRITTEN, "w0/2/6")]
    assert "lines 6–9 are not what manifest 2 signed" in report.findings[0].message


def test_an_edit_with_all_hashes_made_anew_in_one_signed_second(made: AJournal) -> None:
    made.write("w1")
    made.sign()
    rehash(made, "w1", lambda body: body.replace(b"x-w1-9", b"x-w1-0"))
    report = checked(made)
    assert faults(report) == [(Fault.REWRITTEN, "w1/2/9")]
    assert "line 9 is not what" in report.findings[0].message


def test_a_missing_slot(made: AJournal) -> None:
    shutil.rmtree(made.journal / "w1")
    assert faults(checked(made)) == [(Fault.CHAIN, "w1")]


def test_a_missing_newest_segment(made: AJournal) -> None:
    made.path("w1", 2).unlink()
    assert faults(checked(made)) == [(Fault.CUT, "w1/1/6")]


@pytest.mark.parametrize("emptied", [False, True])
def test_a_missing_segment_in_the_middle(made: AJournal, *, emptied: bool) -> None:
    made.path("w0", 2).unlink()
    if emptied:
        made.path("w0", 2).touch()
    report = checked(made)
    assert faults(report) == [(Fault.SEGMENT, "w0/3/6")]
    assert "segment 2 before it is missing" in report.findings[0].message


def test_a_missing_oldest_segment_that_nobody_dropped(made: AJournal) -> None:
    made.path("w0", 1).unlink()
    report = checked(made)
    assert faults(report) == [(Fault.FLOOR, "w0/2/0")]
    assert report.chains[0].last == 12  # and the rest was read


def test_a_chain_that_nobody_signed(made: AJournal, tmp_path: Path) -> None:
    planted = AJournal(tmp_path / "planted")
    planted.write("w2", 2)
    shutil.copytree(planted.journal / "w2", made.journal / "w2")
    assert faults(checked(made)) == [(Fault.UNSIGNED, "w2/1/0")]


def test_swapped_chains(made: AJournal) -> None:
    for names in (("w0", "aside"), ("w1", "w0"), ("aside", "w1")):
        (made.journal / names[0]).rename(made.journal / names[1])
    report = checked(made)
    assert faults(report) == [(Fault.HEADER, "w0/1/0"), (Fault.HEADER, "w1/1/0")]
    assert f"node {NODE}, chain w1, segment 1; it stands as node {NODE}, chain w0" in report.findings[0].message


def test_swapped_segments(made: AJournal) -> None:
    second, third = made.path("w0", 2), made.path("w0", 3)
    content = second.read_bytes()
    second.write_bytes(third.read_bytes())
    third.write_bytes(content)
    assert faults(checked(made)) == [(Fault.HEADER, "w0/2/6")]


# --- nodes ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def other(tmp_path: Path) -> AJournal:
    return a_whole_journal(tmp_path / "other", OTHER_NODE)


def test_a_chain_of_another_node(made: AJournal, other: AJournal) -> None:
    shutil.rmtree(made.journal / "w0")
    shutil.copytree(other.journal / "w0", made.journal / "w0")
    report = checked(made)
    assert faults(report) == [(Fault.HEADER, "w0/1/0")]
    assert OTHER_NODE in report.findings[0].message


def test_the_name_of_another_node(made: AJournal, other: AJournal) -> None:
    shutil.copy(other.journal / "node.json", made.journal / "node.json")
    found = faults(checked(made))
    assert found[0] == (Fault.NODE, "journal")
    assert (Fault.HEADER, "w0/1/0") in found


def test_the_manifests_of_another_node(made: AJournal, other: AJournal) -> None:
    shutil.rmtree(made.journal / "manifests")
    shutil.copytree(other.journal / "manifests", made.journal / "manifests")
    assert faults(checked(made, keys=(made.public, other.public))) == [
        (Fault.NODE, "journal"), (Fault.MANIFEST, "manifest 0"),
    ]  # fmt: skip


def test_the_whole_journal_of_another_node(made: AJournal, other: AJournal) -> None:
    """It is whole, and signed by a key that is not the one we trust."""
    assert faults(checked(other, keys=(made.public,))) == [(Fault.KEY, "manifest 0")]


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"v":1,"node":"x"}'])
def test_a_node_that_is_not_named_any_more(made: AJournal, content: bytes | None) -> None:
    path = made.journal / "node.json"
    path.unlink() if content is None else path.write_bytes(content)
    report = checked(made)
    assert faults(report) == [(Fault.NODE, "journal")]
    assert (report.node, report.lines) == (NODE, 24)  # as the manifests say


def test_a_node_that_nothing_names(made: AJournal) -> None:
    (made.journal / "node.json").unlink()
    shutil.rmtree(made.journal / "manifests")
    report = checked(made)
    assert faults(report) == [(Fault.NODE, "journal")]
    assert report.notes


# --- manifests ------------------------------------------------------------------------------------------------------


def manifest_lines(made: AJournal) -> list[bytes]:
    return [line.rstrip(b"\n") for path in layout.manifest_files(made.journal) for line in lines_of(path)]


def put(made: AJournal, lines: list[bytes]) -> None:
    """These manifests and no others."""
    for path in layout.manifest_files(made.journal):
        path.unlink()
    made.manifest_path(1).write_bytes(b"".join(line + b"\n" for line in lines))


def resign(made: AJournal, signer: Signer, n: int) -> None:
    """The manifests from number `n` on are linked and signed anew, as anybody can with a key of their own."""
    lines = manifest_lines(made)
    for at in range(n, len(lines)):
        manifest = parse_manifest(lines[at])
        prev = digest_of(lines[at - 1]) if at else manifest.prev
        lines[at] = sign(structs.replace(manifest, prev=prev, at_us=manifest.at_us + 1), signer)
    put(made, lines)


def badly_signed(line: bytes) -> bytes:
    """The same manifest with another signature, which is none."""
    start = line.index(b'"sig":"') + 7
    return line[:start] + (b"1" if line[start:].startswith(b"0") else b"0") + line[start + 1 :]


def test_manifests_forged_from_the_first_on(tmp_path: Path) -> None:
    made = AJournal(tmp_path / "state")
    made.write("w0", 3)
    made.sign()
    assert checked(made).verdict == "verified"
    resign(made, STRANGER, 0)
    assert faults(checked(made)) == [(Fault.KEY, "manifest 0")]
    assert verify(made.journal).verdict == "integrity only"  # that is why the words are there


def test_manifests_forged_from_one_on(made: AJournal) -> None:
    resign(made, STRANGER, 4)
    report = checked(made)
    assert faults(report) == [(Fault.MANIFEST, "manifest 4")]
    assert "expects key" in report.findings[0].message


def test_a_forged_manifest_over_rewritten_lines(made: AJournal) -> None:
    """Everything fits, the hashes, the heads and the links; only the signature cannot be made."""
    rehash(made, "w0", lambda body: body.replace(b"x-w0-12", b"x-w0-00"))
    lines = manifest_lines(made)
    end = parse(lines_of(made.path("w0", 3))[-1])
    forged = parse_manifest(lines[-1])
    chains = (structs.replace(forged.chains[0], head=end.hash.hex()), *forged.chains[1:])
    leaves = [leaf_of(parse(line).body) for line in lines_of(made.path("w0", 3))]
    forged = structs.replace(forged, chains=chains, root=root_of(leaves).hex())
    put(made, [*lines[:-1], encode(forged)])
    assert verify(made.journal).verdict == "integrity only"
    assert faults(checked(made)) == [(Fault.SIGNATURE, "manifest 5")]


def test_a_forged_manifest_that_control_went_on_from(made: AJournal) -> None:
    """Control takes its last manifest from the disk: that its own signature follows makes no forged one right."""
    forged = badly_signed(made.manifests[-1])
    put(made, [*made.manifests[:-1], forged])
    made.manifests[-1] = forged
    made.write("w0")
    made.sign()
    assert faults(checked(made)) == [(Fault.SIGNATURE, "manifest 5")]


def test_a_manifest_that_says_another_root(made: AJournal) -> None:
    draft = parse_manifest(made.manifests.pop())
    put(made, [*made.manifests, sign(structs.replace(draft, root="0" * 64), made.signer)])
    assert faults(checked(made)) == [(Fault.MANIFEST, "manifest 5")]


def test_a_manifest_changed_behind_which_others_stand(made: AJournal) -> None:
    """The newest still vouches for the chains, so what is wrong there is found as well."""
    lines = manifest_lines(made)
    put(made, [line.replace(b'"leaves":', b'"Leaves":') if n == 3 else line for n, line in enumerate(lines)])
    rewrite(made.path("w0", 3), without(-1))
    assert set(faults(checked(made))) == {(Fault.MANIFEST, "manifest 3"), (Fault.CUT, "w0/3/12")}


def test_manifests_cut(made: AJournal) -> None:
    """A minute of lines without a signature: control was not running, or somebody took its manifests away."""
    put(made, manifest_lines(made)[:3])
    report = checked(made)
    assert set(faults(report)) == {(Fault.UNSIGNED, "w0/3/10"), (Fault.UNSIGNED, "w1/2/3")}
    assert "60 s after the last manifest" in report.findings[0].message


def test_lines_that_only_just_were_written_need_no_signature(made: AJournal) -> None:
    made.write("w0", 2)
    made.write("w5", 2)
    report = checked(made)
    assert report.verdict == "verified"
    assert [(chain.chain, chain.unsigned) for chain in report.chains if chain.unsigned] == [("w0", 2), ("w5", 3)]


def test_all_manifests_removed(made: AJournal) -> None:
    shutil.rmtree(made.journal / "manifests")
    assert faults(checked(made)) == [(Fault.UNSIGNED, "journal")]


def test_the_oldest_manifests_removed(made: AJournal) -> None:
    put(made, manifest_lines(made)[2:])
    report = checked(made)
    assert faults(report) == [(Fault.MANIFEST, "manifest 2")]
    assert "manifests 0–1 before it are missing" in report.findings[0].message


def test_a_manifest_missing_in_the_middle(made: AJournal) -> None:
    lines = manifest_lines(made)
    put(made, lines[:2] + lines[3:])
    assert faults(checked(made)) == [(Fault.MANIFEST, "manifest 3")]


def test_a_manifest_replaced_by_an_older_one(made: AJournal) -> None:
    lines = manifest_lines(made)
    put(made, [*lines[:-1], lines[-2]])
    assert faults(checked(made)) == [(Fault.MANIFEST, "manifest 4")]


def test_the_end_of_a_manifest_cut(made: AJournal) -> None:
    path = layout.manifest_files(made.journal)[-1]
    path.write_bytes(path.read_bytes()[:-5])
    assert (Fault.INCOMPLETE, "journal") in faults(checked(made))


# --- keys -----------------------------------------------------------------------------------------------------------


def test_an_old_key_vouches_for_what_follows(tmp_path: Path) -> None:
    made = AJournal(tmp_path / "state")
    old = made.public
    made.write("w0")
    made.sign(rotating=True)
    made.write("w0")
    made.sign(rotating=True)
    made.write("w0")
    made.sign()
    report = checked(made, keys=(old,))
    assert (report.verdict, report.manifests.signatures, len(report.manifests.keys)) == ("verified", 3, 3)


def test_a_new_key_vouches_for_what_was_before(made: AJournal) -> None:
    report = checked(made)
    assert (report.manifests.signatures, report.manifests.vouched) == (4, 2)


def test_an_old_key_alone_signs_no_more(made: AJournal) -> None:
    """Who has stolen a key that was handed over cannot go on with it beside the new one."""
    lines = manifest_lines(made)
    draft = structs.replace(parse_manifest(lines[3]), prev=digest_of(lines[2]))
    old = Signer(b"\x01" * 32)
    put(made, [*lines[:3], sign(draft, old)])
    assert faults(checked(made, keys=(made.public, old.public.hex())))[0] == (Fault.MANIFEST, "manifest 3")


# --- repairs --------------------------------------------------------------------------------------------------------


def test_a_forged_repair(made: AJournal) -> None:
    made.repair("w0", b"what somebody would like to be gone", STRANGER)
    made.sign()
    report = checked(made)
    assert faults(report) == [(Fault.REPAIR, "w0/3/13")]
    assert STRANGER.key_id in report.findings[0].message
    assert faults(verify(made.journal)) == faults(report)  # no key of this name ever signed here


def test_a_repair_in_the_name_of_the_right_key(made: AJournal) -> None:
    made.repair("w0", b"what somebody would like to be gone", STRANGER)
    path = made.path("w0", 3)
    path.write_bytes(path.read_bytes().replace(STRANGER.key_id.encode(), made.signer.key_id.encode()))
    rehash(made, "w0", lambda body: body)
    assert faults(checked(made)) == [(Fault.REPAIR, "w0/3/13")]


def test_a_repair_by_a_key_that_was_not_named(tmp_path: Path) -> None:
    made = AJournal(tmp_path / "state")
    made.repair("w0", b"torn")
    made.sign(rotating=True)
    report = checked(made)
    assert report.ok
    assert report.notes == [f"w0/1/1: a repair is signed by key {report.manifests.keys[0]}: name it to check that"]
    assert checked(made, keys=(str(made.signing),)).notes == []


def test_what_a_repair_set_aside_is_still_what_it_was(made: AJournal) -> None:
    (torn,) = (made.journal / "w1").glob("torn-*")
    torn.write_bytes(torn.read_bytes() + b"x")
    assert faults(checked(made)) == [(Fault.TORN, "w1/1")]
    torn.unlink()
    assert checked(made).ok  # evidence of a crash, no part of the journal


def test_signed_lines_that_the_disk_lost_are_told(made: AJournal) -> None:
    detail = json.dumps({"cut_bytes": 0, "cut_sha256": "", "after_seq": 1, "offset": 0, "signed_lost": 7})
    head = made.chain("w0").head.hex()
    signed = f"gateway repair 1\n{NODE}\nw0\n{head}\n{detail}".encode()
    made.add(
        "w0",
        Record(
            Kind.CHECKPOINT, "", made.now_us, action="repaired", subject="w0/3", prev=head, detail=detail,
            signature=made.signer.sign(signed).hex(), signed_by=made.signer.key_id,
        ),
    )  # fmt: skip
    report = checked(made)
    assert report.ok
    assert "7 signed lines were lost" in report.notes[0]


# --- floors ---------------------------------------------------------------------------------------------------------


def test_a_floor_explains_what_is_missing(made: AJournal) -> None:
    made.drop("w0", 2)
    made.write("w0")
    made.sign()
    report = checked(made)
    assert report.verdict == "verified"
    assert (report.chains[0].first, report.chains[0].lines) == (6, 8)


def test_a_floor_explains_only_what_is_below_it(made: AJournal) -> None:
    made.drop("w0", 2)
    made.path("w0", 2).unlink()
    assert faults(checked(made)) == [(Fault.FLOOR, "w0/3/6")]


def test_a_removed_floor(made: AJournal) -> None:
    made.drop("w0", 2)
    put(made, manifest_lines(made)[:-1])
    assert faults(checked(made)) == [(Fault.FLOOR, "w0/2/0")]


def test_a_floor_of_another_chain_excuses_nothing(made: AJournal) -> None:
    made.drop("w0", 2)
    made.path("w1", 1).unlink()
    assert faults(checked(made)) == [(Fault.FLOOR, "w1/2/0")]


def test_segments_that_a_crash_left_below_the_floor_are_checked(made: AJournal) -> None:
    made.raise_floor("w0", 3)
    report = checked(made)
    assert report.verdict == "verified"
    assert "before 3" in report.notes[0]
    made.path("w0", 1).unlink()
    assert checked(made).verdict == "verified"
    path = made.path("w0", 2)
    path.write_bytes(path.read_bytes().replace(b"x-w0-8", b"x-w0-9", 1))
    assert faults(checked(made)) == [(Fault.LINK, "w0/2/8")]


def test_a_floor_that_the_lines_below_it_do_not_lead_to(made: AJournal) -> None:
    made.raise_floor("w0", 3)
    made.path("w0", 1).unlink()
    made.roll_manifests()
    made.sign()
    made.drop_manifests(3)
    forged = AJournal(made.state_dir / "forged")
    forged.write("w0", 5, org="evil")
    forged.roll("w0")
    forged.write("w0", 3)
    shutil.copy(forged.path("w0", 2), made.path("w0", 2))
    assert faults(checked(made))[0] == (Fault.FLOOR, "w0/2/10")


def test_dropped_manifests(made: AJournal) -> None:
    made.drop_manifests(2)
    report = checked(made)
    assert (report.verdict, report.manifests.first) == ("verified", 3)
    first = layout.manifest_files(made.journal)[0]
    rewrite(first, without(0))
    assert faults(checked(made)) == [(Fault.MANIFEST, "manifest 4")]


def test_all_of_a_chain_was_dropped(made: AJournal) -> None:
    made.roll("w0")
    made.sign()
    made.drop("w0", 4)
    assert checked(made).verdict == "verified"
    assert checked(made).chains[0].lines == 1


# --- from an anchor -------------------------------------------------------------------------------------------------


def anchor_of(made: AJournal, n: int) -> Checkpoint:
    return Checkpoint(n=n, line=made.manifests[n])


@pytest.mark.parametrize("n", range(6))
def test_from_any_manifest_on(made: AJournal, n: int) -> None:
    report = checked(made, anchor_of(made, n))
    assert (report.verdict, report.since, report.manifests.count) == ("verified", n, 5 - n)
    assert report.chains[0].signed == 12


def test_an_anchor_may_be_a_file_a_number_or_a_hash(made: AJournal, tmp_path: Path) -> None:
    file = tmp_path / "anchor.jsonl"
    file.write_bytes(b"".join(line + b"\n" for line in made.manifests[:4]))
    for given in (str(file), "3", digest_of(made.manifests[3])):
        assert checked(made, read_checkpoint(given)).since == 3


def test_only_what_follows_an_anchor_is_read(made: AJournal) -> None:
    path = made.path("w0", 1)
    path.write_bytes(b"x" * path.stat().st_size)
    told: list[tuple[int, int]] = []
    keys = read_keys([made.public])
    assert verify(made.journal, keys, anchor_of(made, 4), lambda *count: told.append(count)).ok
    assert told[-1] == (made.path("w0", 3).stat().st_size + len(made.manifests[5]) + 1,) * 2


def test_a_journal_rolled_back_as_a_whole(made: AJournal, tmp_path: Path) -> None:
    """Nothing in it can show that; an anchor does."""
    kept = tmp_path / "kept"
    shutil.copytree(made.journal, kept)
    made.write("w0", 3)
    made.sign()
    shutil.rmtree(made.journal)
    shutil.copytree(kept, made.journal)
    assert checked(made).verdict == "verified"
    report = checked(made, anchor_of(made, 6))
    assert faults(report) == [(Fault.ANCHOR, "manifest 6")]
    assert "whose newest is 5" in report.findings[0].message
    assert "older than the anchor" in str(report.findings[0])


def test_a_journal_written_anew_by_who_has_the_key(made: AJournal) -> None:
    anchor = anchor_of(made, 4)
    resign(made, made.signer, 3)
    assert faults(checked(made, anchor)) == [(Fault.ANCHOR, "manifest 4")]


def test_an_anchor_that_was_dropped(made: AJournal) -> None:
    anchor = anchor_of(made, 1)
    made.drop_manifests(2)
    report = checked(made, anchor)
    assert faults(report) == [(Fault.ANCHOR, "manifest 1")]
    assert "give a newer anchor, from 3 on" in report.findings[0].message


def test_a_hash_that_no_manifest_has(made: AJournal) -> None:
    assert faults(checked(made, Checkpoint(digest="0" * 64))) == [(Fault.ANCHOR, "journal")]


def test_an_anchor_in_a_journal_without_manifests(made: AJournal) -> None:
    shutil.rmtree(made.journal / "manifests")
    assert "holds no manifest" in checked(made, anchor_of(made, 1)).findings[0].message


def test_an_anchor_signed_by_nobody_we_know(made: AJournal) -> None:
    assert faults(checked(made, anchor_of(made, 5), (STRANGER.public.hex(),))) == [(Fault.KEY, "manifest 5")]


def test_an_anchor_with_a_wrong_signature(made: AJournal) -> None:
    forged = badly_signed(made.manifests[5])
    put(made, [*made.manifests[:5], forged])
    assert faults(checked(made, Checkpoint(n=5, line=forged))) == [(Fault.SIGNATURE, "manifest 5")]


@pytest.mark.parametrize("cut", [0, 10])
def test_the_line_that_the_anchor_ends_with_is_looked_at(made: AJournal, cut: int) -> None:
    path = made.path("w0", 3)
    content = path.read_bytes()
    path.write_bytes(content[:-cut] if cut else content[:-10] + b"x" * 10)
    report = checked(made, anchor_of(made, 5))
    assert faults(report) == [(Fault.CUT if cut else Fault.REWRITTEN, "w0/3/12")]


def test_an_anchor_whose_lines_were_dropped_meanwhile(made: AJournal) -> None:
    made.roll("w0")
    made.sign()
    made.drop("w0", 3)
    report = checked(made, anchor_of(made, 1))
    assert (report.verdict, report.chains[0].first) == ("verified", 10)


# --- while it is written --------------------------------------------------------------------------------------------


def writing(path: Path, content: bytes) -> Callable[[float], None]:
    """Somebody who goes on writing while we wait."""

    def pause(_seconds: float) -> None:
        path.write_bytes(content)

    return pause


def test_a_write_under_way_is_waited_for(made: AJournal) -> None:
    made.write("w0")
    path = made.path("w0", 3)
    content = path.read_bytes()
    path.write_bytes(content[:-7])
    report = verify(made.journal, read_keys([made.public]), pause=writing(path, content))
    assert (report.verdict, report.chains[0].last) == ("verified", 13)


def test_a_write_cut_short_for_good(made: AJournal) -> None:
    made.write("w0")
    path = made.path("w0", 3)
    path.write_bytes(path.read_bytes()[:-7])
    report = checked(made)
    assert faults(report) == [(Fault.INCOMPLETE, "w0/3/13")]
    assert "the gateway repairs that when it starts" in str(report.findings[0])


def test_a_line_that_chains_is_not_judged_by_what_it_says(made: AJournal) -> None:
    """Whether a record means anything is its readers' business; the chain says that its writer wrote it."""
    at = made.chain("w0")
    body = b'{"seq":%d,"kind":"outcome",nonsense' % at.seq
    with made.path("w0", 3).open("ab") as file:
        file.write(line_of(body, link(at.head, leaf_of(body))))
    report = checked(made)
    assert (report.verdict, report.unsigned) == ("verified", 1)


def test_a_manifest_under_way_is_waited_for(made: AJournal) -> None:
    path = layout.manifest_files(made.journal)[-1]
    content = path.read_bytes()
    path.write_bytes(content[:-7])
    report = verify(made.journal, read_keys([made.public]), pause=writing(path, content))
    assert (report.verdict, report.manifests.last) == ("verified", 5)


def test_an_empty_segment_made_before_it_is_needed(made: AJournal) -> None:
    made.path("w0", 4).touch()
    assert checked(made).verdict == "verified"


def test_what_is_written_meanwhile_waits_for_the_next_time(made: AJournal) -> None:
    written = False

    def writing(_done: int, _total: int) -> None:
        nonlocal written
        if not written:
            made.write("w0", 3)
            made.sign()
        written = True

    report = verify(made.journal, read_keys([made.public]), progress=writing)
    assert (report.verdict, report.chains[0].last, report.manifests.last) == ("verified", 12, 5)


def test_what_retention_drops_meanwhile_is_no_finding(made: AJournal) -> None:
    dropped = False

    def dropping(_done: int, _total: int) -> None:
        nonlocal dropped
        if not dropped:
            dropped = True
            made.drop("w0", 3)

    report = verify(made.journal, read_keys([made.public]), progress=dropping)
    assert (report.verdict, report.chains[0].first) == ("verified", 10)


def test_what_goes_away_again_and_again_is_an_error(made: AJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []

    def gone(path: Path) -> None:
        opened.append(path)
        raise FileNotFoundError(path)

    monkeypatch.setattr("gateway.journal.scan.FileIO", gone)
    with pytest.raises(FileNotFoundError):
        verify(made.journal)
    assert len(opened) == 3


def test_memory_does_not_grow_with_the_journal(tmp_path: Path) -> None:
    """Ten times as many lines, segments and manifests, and at most a little more at the highest point."""
    highest = []
    for size in (1, 10):
        made = AJournal(tmp_path / str(size))
        for _ in range(20 * size):
            made.write("w0", 20, detail="x" * 1500)
            made.write("w1", 20, detail="x" * 1500)
            made.roll("w0")
            made.sign()
        keys = read_keys([made.public])
        verify(made.journal, keys)  # what is loaded and cached once is no part of it
        tracemalloc.start()
        assert verify(made.journal, keys).lines > 800 * size
        highest.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert highest[1] < highest[0] * 1.3 + 100_000, highest
