"""A manifest has one spelling, every byte of it counts, and none can follow where it does not belong."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from gateway.journal import manifest as module
from gateway.journal.manifest import (
    FIRST_PREV,
    BadManifest,
    ChainEnd,
    Floor,
    Manifest,
    ManifestFloor,
    NewerManifest,
    NextKey,
    digest_of,
    encode,
    fault_after,
    is_handed_over,
    is_signed,
    last_line,
    last_manifest,
    lines,
    parse,
    sign,
    signed_part,
)
from gateway.journal.merkle import EMPTY_ROOT
from gateway.journal.signing import Signer, verify_signature

OLD, NEW = Signer(bytes(32)), Signer(bytes([1] * 32))
NODE = "0123456789abcdef" * 2
HEAD, ROOT = sha256(b"head").hexdigest(), sha256(b"root").hexdigest()


def end(chain: str, segment: int = 1, seq: int = 9) -> ChainEnd:
    return ChainEnd(chain, segment, 100 + seq, seq, HEAD)


FIRST = Manifest(
    v=1, node=NODE, n=0, at_us=1_800_000_000_000_000, prev=FIRST_PREV, chains=(end("w0"), end("w10"), end("control")),
    first={"w0": 0, "control": 0, "w10": 0}, leaves=30, root=ROOT, key="", sig="",
)  # fmt: skip
FIRST = structs.replace(FIRST, first={"w0": 0, "w10": 0, "control": 0})
LINE = sign(FIRST, OLD)
FULL = structs.replace(
    FIRST, n=7, prev=HEAD, floors=(Floor("w0", 1, 10, HEAD),), manifest_floor=ManifestFloor(2, ROOT),
)  # fmt: skip
FULL_LINE = sign(FULL, OLD, NEW)


def following(line: bytes = LINE, **changes: object) -> Manifest:
    """A manifest that may follow, in which nothing is new."""
    before = parse(line)
    told: dict[str, object] = {"n": before.n + 1, "prev": digest_of(line), "first": {}, "leaves": 0, "next": None}
    return structs.replace(before, **(told | {"root": EMPTY_ROOT.hex(), "sig_next": ""} | changes))


# --- bytes ----------------------------------------------------------------------------------------------------------


def test_one_manifest_as_it_is_written() -> None:
    text = (
        b'{"v":1,"node":"%b","n":0,"at_us":1800000000000000,"prev":"%b","chains":['
        b'{"chain":"w0","segment":1,"offset":109,"seq":9,"head":"%b"},'
        b'{"chain":"w10","segment":1,"offset":109,"seq":9,"head":"%b"},'
        b'{"chain":"control","segment":1,"offset":109,"seq":9,"head":"%b"}],'
        b'"first":{"w0":0,"w10":0,"control":0},"leaves":30,"root":"%b","key":"%b"'
    ) % (NODE.encode(), b"0" * 64, *[HEAD.encode()] * 3, ROOT.encode(), OLD.key_id.encode())
    assert text + b',"sig":"' + OLD.sign(text).hex().encode() + b'"}' == LINE
    assert signed_part(LINE) == text


def test_everything_a_manifest_can_say_in_its_order() -> None:
    said = json.loads(FULL_LINE)
    assert list(said) == [
        "v", "node", "n", "at_us", "prev", "chains", "floors", "manifest_floor", "first", "leaves", "root", "next",
        "key", "sig", "sig_next",
    ]  # fmt: skip
    assert said["floors"] == [{"chain": "w0", "segment": 1, "seq": 10, "head": HEAD}]
    assert said["manifest_floor"] == {"n": 2, "prev": ROOT}
    assert said["next"] == {"key": NEW.key_id, "public": NEW.public.hex()}
    assert verify_signature(NEW.public, signed_part(FULL_LINE), bytes.fromhex(said["sig_next"]))


def test_what_is_read_is_what_was_written() -> None:
    for line in (LINE, FULL_LINE):
        assert encode(parse(line)) == line
    assert parse(LINE).end_of("w10") == end("w10")
    assert parse(LINE).end_of("w3") is None
    assert (parse(LINE).signer_after(), parse(FULL_LINE).signer_after()) == (OLD.key_id, NEW.key_id)


@given(st.sampled_from([LINE, FULL_LINE]), st.data())
def test_any_changed_byte_shows(line: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(line) - 1))
    changed = line[:at] + bytes([line[at] ^ data.draw(st.integers(1, 255))]) + line[at + 1 :]
    try:
        manifest = parse(changed)
    except BadManifest:
        return
    assert not is_signed(manifest, changed, OLD.public)


def test_every_letter_of_other_case_shows() -> None:
    for at in range(len(FULL_LINE)):
        swapped = FULL_LINE[:at] + FULL_LINE[at : at + 1].swapcase() + FULL_LINE[at + 1 :]
        if swapped != FULL_LINE:
            with pytest.raises(BadManifest):
                parse(swapped)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b"\0" * 100,
        LINE[:-1],
        LINE + b" ",
        LINE + b"\n",
        b" " + LINE,
        LINE.replace(b":1,", b": 1,", 1),
        LINE.replace(b'"n":0', b'"n":0,"m":0'),
        LINE.replace(b'"n":0', b'"n":0.0'),
        LINE.replace(b'"n":0', b'"n":-1'),
        LINE.replace(b'"leaves":30', b'"leaves":30,"next":null'),
        LINE.replace(b'"n":0,"at_us":1800000000000000', b'"at_us":1800000000000000,"n":0'),
        LINE.replace(b'"sig":"', b'"sig":"00'),
        LINE.replace(NODE.encode(), NODE.upper().encode()),
        LINE.replace(NODE.encode(), NODE[:-2].encode() + b"\\n"),
        FULL_LINE.replace(b'"sig_next":"', b'"sig_next":"00'),
        b'{"v":1,"x":' + b"[" * 50_000,
        LINE.replace(b'"at_us":1800000000000000', b'"at_us":' + b"9" * 5000),
    ],
)
def test_what_is_no_manifest(line: bytes) -> None:
    with pytest.raises(BadManifest):
        parse(line)


@pytest.mark.parametrize("line", [b'{"v":2,"other":true}', LINE.replace(b'"v":1', b'"v":2')])
def test_a_later_version_is_said_to_be_one(line: bytes) -> None:
    with pytest.raises(NewerManifest, match="version 2, this build reads 1: use a newer build"):
        parse(line)
    with pytest.raises(BadManifest, match="version 0") as told:
        parse(LINE.replace(b'"v":1', b'"v":0'))
    assert not isinstance(told.value, NewerManifest)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n": 1}, "only the first"),
        ({"prev": HEAD}, "only the first"),
        ({"chains": (end("w10"), end("w0"), end("control"))}, "not in order"),
        ({"chains": (end("w0"), end("w0"), end("control"))}, "not in order"),
        ({"chains": (end("w0"), end("w01"), end("control"))}, "not in order"),
        ({"floors": (Floor("w1", 1, 1, HEAD), Floor("w0", 1, 1, HEAD))}, "not in order"),
        ({"first": {"w0": 0, "w10": 0, "w2": 0}}, "whose end it does not state"),
        ({"first": {"w10": 0, "w0": 0, "control": 0}}, "not in the order"),
        ({"first": {"w0": 0, "w10": 0, "control": 10}, "leaves": 20}, "do not reach"),
        ({"first": {"w0": 0, "w10": 0, "control": -1}, "leaves": 31}, "do not reach"),
        ({"leaves": 29}, "29 leaves and names 30"),
        ({"floors": (Floor("w1", 1, 1, HEAD),)}, "begin after its own end"),
        ({"floors": (Floor("w0", 1, 11, HEAD),)}, "begin after its own end"),
        ({"manifest_floor": ManifestFloor(1, HEAD)}, "floor is above"),
    ],
)
def test_what_a_manifest_may_not_say(changes: dict[str, object], said: str) -> None:
    with pytest.raises(BadManifest, match=said):
        parse(sign(structs.replace(FIRST, **changes), OLD))


@pytest.mark.parametrize("changes", [{"sig_next": ""}, {"next": None}])
def test_a_change_of_keys_has_both_its_halves(changes: dict[str, object]) -> None:
    with pytest.raises(BadManifest):
        parse(encode(structs.replace(parse(FULL_LINE), **changes)))


# --- signatures -----------------------------------------------------------------------------------------------------


def test_only_the_key_that_signed_fits() -> None:
    assert is_signed(parse(LINE), LINE, OLD.public)
    assert not is_signed(parse(LINE), LINE, NEW.public)
    assert not is_signed(parse(LINE), LINE, b"")


def test_another_key_under_the_same_name_does_not_fit() -> None:
    forged = sign(FIRST, NEW).replace(NEW.key_id.encode(), OLD.key_id.encode())
    assert not is_signed(parse(forged), forged, NEW.public)
    assert not is_signed(parse(forged), forged, OLD.public)


def test_a_hand_over_takes_both_keys() -> None:
    manifest = parse(FULL_LINE)
    assert is_signed(manifest, FULL_LINE, OLD.public)
    assert is_handed_over(manifest, FULL_LINE)
    assert not is_handed_over(parse(LINE), LINE)
    unwilling = structs.replace(manifest, sig_next=manifest.sig)
    assert not is_signed(unwilling, encode(unwilling), OLD.public)
    assert not is_handed_over(unwilling, encode(unwilling))


def test_a_next_key_is_called_what_it_is() -> None:
    draft = structs.replace(parse(FULL_LINE), next=NextKey(OLD.key_id, NEW.public.hex()))
    signed = signed_part(encode(draft))
    draft = structs.replace(draft, sig=OLD.sign(signed).hex(), sig_next=NEW.sign(signed).hex())
    assert not is_signed(parse(encode(draft)), encode(draft), OLD.public)


# --- one after the other --------------------------------------------------------------------------------------------


def test_what_may_follow() -> None:
    before = parse(LINE)
    allowed: list[dict[str, Any]] = [
        {},
        {"at_us": 0},
        {"chains": (end("w0"), end("w10", 2, 12), end("control")), "first": {"w10": 10}, "leaves": 3},
        {"chains": (end("w0"), end("w3", 1, 0), *before.chains[1:]), "first": {"w3": 0}, "leaves": 1},
        {"floors": (Floor("w0", 1, 10, HEAD),), "manifest_floor": ManifestFloor(1, digest_of(LINE))},
    ]
    for changes in allowed:
        manifest = parse(sign(following(LINE, **changes), OLD))
        assert fault_after(before, LINE, manifest) == ""


def test_after_a_hand_over_only_the_next_key_signs() -> None:
    before = parse(FULL_LINE)
    assert fault_after(before, FULL_LINE, parse(sign(following(FULL_LINE), NEW))) == ""
    assert "expects key" in fault_after(before, FULL_LINE, parse(sign(following(FULL_LINE), OLD)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"node": "f" * 32}, "of node ffff"),
        ({"n": 2}, "is number 2 and follows number 0"),
        ({"prev": HEAD}, "is not the hash of the manifest before"),
        ({"chains": (end("w0"), end("control"))}, "chain w10 is gone"),
        ({"chains": (end("w0"), end("w10", 1, 8), end("control"))}, "ends elsewhere than before"),
        ({"chains": (end("w0"), end("w10", 1, 10), end("control"))}, "ends elsewhere than before"),
        (
            {"chains": (end("w0"), end("w10", 1, 11), end("control")), "first": {"w10": 11}, "leaves": 1},
            "goes on with line 11 after line 9",
        ),
        (
            {"chains": (end("w0"), end("w10", 1, 11), end("control")), "first": {"w10": 9}, "leaves": 3},
            "goes on with line 9 after line 9",
        ),
        (
            {"chains": (end("w0"), end("w10", 0, 11), end("control")), "first": {"w10": 10}, "leaves": 2},
            "its end goes back",
        ),
        ({"chains": (end("w0"), end("w3"), end("w10"), end("control"))}, "chain w3 begins in the middle"),
        (
            {"chains": (end("w0"), end("w3"), end("w10"), end("control")), "first": {"w3": 1}, "leaves": 9},
            "chain w3 begins in the middle",
        ),
    ],
)
def test_what_may_not_follow(changes: dict[str, object], said: str) -> None:
    assert said in fault_after(parse(LINE), LINE, parse(sign(following(LINE, **changes), OLD)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"floors": ()}, "the beginning of chain w0 goes back"),
        ({"floors": (Floor("w0", 1, 9, HEAD),)}, "the beginning of chain w0 goes back"),
        ({"floors": (Floor("w0", 1, 10, ROOT),)}, "the beginning of chain w0 goes back"),
        ({"manifest_floor": ManifestFloor(1, ROOT)}, "the beginning of the manifests goes back"),
        ({"manifest_floor": None}, "the beginning of the manifests goes back"),
    ],
)
def test_what_was_dropped_does_not_come_back(changes: dict[str, object], said: str) -> None:
    line = sign(FULL, OLD)
    assert said in fault_after(parse(line), line, parse(sign(following(line, **changes), OLD)))


# --- files ----------------------------------------------------------------------------------------------------------


def test_lines_are_read_over_files_and_an_incomplete_one_is_not(tmp_path: Path) -> None:
    assert list(lines(tmp_path)) == []
    assert last_line(tmp_path) is None
    assert last_manifest(tmp_path) is None
    second = sign(following(), OLD)
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "0000000001.jsonl").write_bytes(LINE + b"\n" + second + b"\n")
    (folder / "0000000002.jsonl").write_bytes(LINE[:-5])
    (folder / "0000000003.jsonl").touch()
    assert list(lines(tmp_path)) == [LINE, second]
    assert last_line(tmp_path) == second
    assert last_manifest(tmp_path) == parse(second)
    (folder / "0000000003.jsonl").write_bytes(LINE + b"\n" + second)
    assert last_line(tmp_path) == LINE
    (folder / "0000000003.jsonl").write_bytes(b"rubbish\n")
    with pytest.raises(BadManifest, match="no manifest"):
        last_manifest(tmp_path)


def test_the_schema_says_what_is_written() -> None:
    assert [field.name for field in msgspec.structs.fields(module.Manifest)] == list(json.loads(FULL_LINE))
