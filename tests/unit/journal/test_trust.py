"""Which keys are believed, and through what."""

from pathlib import Path

import pytest

from gateway.journal.findings import Fault, Finding, ManifestReport
from gateway.journal.manifest import parse
from gateway.journal.signing import Signer
from gateway.journal.trust import BadKey, Trust, read_keys, repair_signed_part
from gateway.record import Kind, Record
from tests.fakes.a_journal import NODE, AJournal

STRANGER = Signer(b"\x07" * 32)
FINDING = Finding(fault=Fault.REPAIR, message="m", chain="w0", segment=1, seq=1)


@pytest.fixture
def made(tmp_path: Path) -> AJournal:
    """Six manifests by three keys: the second and the fourth hand over."""
    made = AJournal(tmp_path / "state")
    for n in range(6):
        made.write("w0")
        made.sign(rotating=n in {1, 3})
    return made


def trusting(*keys: str) -> tuple[Trust, ManifestReport]:
    report = ManifestReport()
    return Trust(read_keys(keys), report), report


def walked(made: AJournal, trust: Trust, lines: list[bytes] | None = None) -> list[str]:
    return [trust.judge(parse(line), line) for line in made.manifests if lines is None or line in lines]


def keys_of(made: AJournal) -> list[str]:
    """The three keys in the order they signed."""
    by_id = {path.stem: path.read_text().strip() for path in made.signing.glob("*.pub")}
    return [by_id[key] for key in dict.fromkeys(parse(line).key for line in made.manifests)]


# --- manifests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("which", "signatures", "vouched"), [(0, 6, 0), (1, 5, 1), (2, 3, 3)])
def test_any_key_of_the_three_leads_to_the_others(made: AJournal, which: int, signatures: int, vouched: int) -> None:
    trust, report = trusting(keys_of(made)[which])
    assert walked(made, trust) == [""] * 6
    assert trust.doubts(dropped=False, broke=False) == ([], [])
    assert (report.signatures, report.vouched, len(report.keys)) == (signatures, vouched, 3)


def test_a_strange_key_leads_nowhere(made: AJournal) -> None:
    trust, report = trusting(STRANGER.public.hex())
    assert walked(made, trust) == [""] * 6
    ((finding,), _) = trust.doubts(dropped=False, broke=False)
    assert (finding.fault, finding.manifest) == (Fault.KEY, 0)
    assert report.keys[-1] in finding.message
    assert trust.doubts(dropped=False, broke=True) == ([], [])


def test_an_old_key_does_not_vouch_for_what_it_did_not_sign(made: AJournal) -> None:
    """Without the manifest that handed over, the newer ones are strangers'."""
    trust, _ = trusting(keys_of(made)[0])
    assert walked(made, trust, [made.manifests[0], *made.manifests[2:]]) == [""] * 5
    assert [finding.manifest for finding in trust.doubts(dropped=False, broke=False)[0]] == [2]


def test_a_signature_that_does_not_fit(made: AJournal) -> None:
    trust, _ = trusting(keys_of(made)[0])
    line = made.manifests[0]
    forged = line.replace(b'"at_us":1', b'"at_us":2')
    assert trust.judge(parse(forged), forged) == f"its signature is not one of key {parse(line).key}"


def test_a_handover_that_the_new_key_did_not_sign(made: AJournal) -> None:
    trust, _ = trusting(keys_of(made)[1])
    line = made.manifests[1]
    start = line.index(b'"sig_next":"') + 12
    forged = line[:start] + (b"1" if line[start:].startswith(b"0") else b"0") + line[start + 1 :]
    assert "did not sign it" in trust.judge(parse(forged), forged)


def test_a_handover_by_nobody_to_a_key_under_a_known_name(made: AJournal) -> None:
    """A key's name is a part of its hash: two keys of one name are not impossible, only expensive."""
    trust, _ = trusting(keys_of(made)[1])
    line = made.manifests[1]
    next_key = parse(line).next
    assert next_key is not None
    trust.known[next_key.key] = STRANGER.public
    assert "did not sign it" in trust.judge(parse(line), line)


def test_without_keys_nothing_is_said_of_signatures(made: AJournal) -> None:
    trust, report = trusting()
    forged = made.manifests[0].replace(b'"at_us":1', b'"at_us":2')
    assert trust.judge(parse(forged), forged) == ""
    assert trust.believes(parse(forged), forged)
    assert trust.doubts(dropped=False, broke=False) == ([], [])
    assert (report.signatures, report.keys) == (0, [parse(forged).key])


def test_out_of_order_only_what_a_known_key_signed_is_believed(made: AJournal) -> None:
    first, last = made.manifests[0], made.manifests[5]
    trust, _ = trusting(keys_of(made)[2])
    assert not trust.believes(parse(first), first)
    assert trust.believes(parse(last), last)


# --- repairs --------------------------------------------------------------------------------------------------------


def repair(signer: Signer, *, wrong: bool = False) -> Record:
    record = Record(Kind.CHECKPOINT, "", 0, action="repaired", prev="ab" * 32, detail="{}", signed_by=signer.key_id)
    by = STRANGER if wrong else signer
    signature = by.sign(repair_signed_part(NODE, "w0", record)).hex()
    return Record(
        Kind.CHECKPOINT, "", 0, action="repaired", prev="ab" * 32, detail="{}", signed_by=signer.key_id,
        signature=signature,
    )  # fmt: skip


def test_what_the_signature_of_a_repair_is_over() -> None:
    signed = repair_signed_part(NODE, "w0", repair(STRANGER))
    assert signed == b"gateway repair 1\n" + NODE.encode() + b"\nw0\n" + b"ab" * 32 + b"\n{}"


def test_a_repair_by_a_known_key(made: AJournal) -> None:
    trust, _ = trusting(made.public)
    assert trust.repair(FINDING, repair(made.signer), NODE) is None
    assert trust.repair(FINDING, repair(made.signer, wrong=True), NODE) is FINDING
    assert trust.repair(FINDING, repair(made.signer), "0" * 32) is FINDING
    assert trust.doubts(dropped=False, broke=False) == ([], [])


@pytest.mark.parametrize("wrong", [False, True])
def test_a_repair_by_a_key_that_becomes_known(made: AJournal, *, wrong: bool) -> None:
    trust, _ = trusting(keys_of(made)[0])
    assert trust.repair(FINDING, repair(made.signer, wrong=wrong), NODE) is None
    walked(made, trust)
    assert trust.doubts(dropped=False, broke=False) == ([FINDING] if wrong else [], [])


def test_a_repair_by_an_older_key_than_was_named(made: AJournal) -> None:
    trust, report = trusting(keys_of(made)[2])
    walked(made, trust)
    old = Record(Kind.CHECKPOINT, "", 0, signed_by=report.keys[0])
    assert trust.repair(FINDING, old, NODE) is None
    findings, (note,) = trust.doubts(dropped=False, broke=False)
    assert findings == []
    assert report.keys[0] in note


def test_a_repair_by_a_key_that_nothing_names(made: AJournal) -> None:
    trust, _ = trusting(made.public)
    walked(made, trust)
    assert trust.repair(FINDING, repair(STRANGER), NODE) is None
    assert trust.doubts(dropped=False, broke=False) == ([FINDING], [])
    assert trust.doubts(dropped=True, broke=False)[0] == []  # its manifests may have been dropped


def test_without_keys_a_repair_by_a_stranger_shows_all_the_same(made: AJournal) -> None:
    trust, _ = trusting()
    walked(made, trust)
    trust.repair(FINDING, repair(STRANGER), NODE)
    trust.repair(FINDING, repair(made.signer, wrong=True), NODE)
    assert trust.doubts(dropped=False, broke=False) == ([FINDING], [])


@pytest.mark.parametrize("signature", ["", "zz", "ab" * 64])
def test_a_signature_that_is_none(made: AJournal, signature: str) -> None:
    trust, _ = trusting(made.public)
    record = Record(Kind.CHECKPOINT, "", 0, signed_by=made.signer.key_id, signature=signature)
    assert trust.repair(FINDING, record, NODE) is FINDING


def test_repairs_that_wait_for_their_key_are_bounded(made: AJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.journal.trust._MAX_WAITING", 2)
    trust, _ = trusting(made.public)
    assert [trust.repair(FINDING, repair(STRANGER), NODE) for _ in range(3)] == [None, None, FINDING]


# --- naming keys ----------------------------------------------------------------------------------------------------


def test_a_key_may_be_digits_a_file_or_a_directory(made: AJournal, tmp_path: Path) -> None:
    key = made.signer.key_id
    assert read_keys([made.public]) == {key: made.signer.public}
    assert read_keys([str(made.signing / f"{key}.pub")]) == {key: made.signer.public}
    assert set(read_keys([str(made.signing)])) == {path.stem for path in made.signing.glob("*.pub")}
    listed = tmp_path / "keys"
    listed.write_text(f"# exported\n{key} {made.public}\n\n{STRANGER.public.hex()}\n")
    assert set(read_keys([str(listed)])) == {key, STRANGER.key_id}
    assert set(read_keys([made.public, STRANGER.public.hex()])) == {key, STRANGER.key_id}


@pytest.mark.parametrize("content", ["", "hello\n", "ab" * 31, "AB" * 32, "\x00\x01"])
def test_a_file_that_holds_no_key(tmp_path: Path, content: str) -> None:
    file = tmp_path / "key.pub"
    file.write_text(content)
    with pytest.raises(BadKey, match="gateway audit keys export"):
        read_keys([str(file)])


def test_what_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(BadKey, match="no file: No such file"):
        read_keys(["ab" * 31])
    (tmp_path / "0000000000000000.pub").write_text("ab" * 32)
    with pytest.raises(BadKey, match="restore it"):
        read_keys([str(tmp_path)])
