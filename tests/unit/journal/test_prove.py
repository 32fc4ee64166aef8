"""A proof stands by itself: any other line, place, path, manifest or key in it, and it proves nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.journal import layout
from gateway.journal.prove import BadProof, NotProvable, Proof, check, encode, find, prove
from gateway.journal.search import Query, search
from gateway.journal.signing import Signer
from gateway.journal.trust import Keys, read_keys
from tests.fakes.a_journal import NODE, AJournal, a_whole_journal

STRANGER = Signer(b"\x07" * 32)


@pytest.fixture
def made(tmp_path: Path) -> AJournal:
    return a_whole_journal(tmp_path / "state")


@pytest.fixture
def keys(made: AJournal) -> Keys:
    return read_keys([str(made.signing)])


def proved(made: AJournal, wanted: str) -> Proof:
    (entry,) = find(made.journal, wanted)
    return prove(made.journal, entry, read_keys([str(made.signing)]))


# --- making ---------------------------------------------------------------------------------------------------------


def test_every_line_of_a_journal_can_be_proved(made: AJournal, keys: Keys) -> None:
    count = 0
    for chain in layout.chains(made.journal):
        for entry in search(made.journal, chain, Query()):
            proof = prove(made.journal, entry, keys)
            shown = check(encode(proof), keys)
            assert (shown.id, shown.record, shown.trusted) == (entry.id(NODE), entry.record, True)
            assert shown.manifest.node == NODE
            count += 1
    assert count == 24


def test_also_when_what_is_before_was_dropped(made: AJournal, keys: Keys) -> None:
    made.drop("w0", 3)
    made.drop_manifests(2)
    assert check(encode(proved(made, "w0/3/11")), keys).manifest.n == 5
    assert check(encode(proved(made, "w1/2/7")), keys).manifest.n == 3


def test_a_line_whose_neighbours_under_one_root_were_dropped(made: AJournal) -> None:
    made.drop("w1", 2)
    with pytest.raises(NotProvable, match="3 of the 6 lines that manifest 3 covers are not here"):
        proved(made, "w1/2/7")


def test_by_id_with_and_without_the_node(made: AJournal) -> None:
    assert proved(made, f"{NODE}/w0/2/7") == proved(made, "w0/2/7")


def test_by_exchange_every_record_it_has(made: AJournal) -> None:
    made.write("w1", exchange_id="x-w0-7")
    assert [entry.id(NODE) for entry in find(made.journal, "x-w0-7")] == [f"{NODE}/w0/2/7", f"{NODE}/w1/2/9"]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("w0/2/99", "no line 99 in segment 2"),
        ("w0/9/7", "no line 7 in segment 9"),
        ("w9/1/1", "no line 1 in segment 1"),
        (f"{'0' * 32}/w0/2/7", "this is the journal of"),
        ("a/b/w0/2/7", "is of node a/b"),
        ("x-nobody", "no record of exchange x-nobody"),
        ("a/b/c", "no record of exchange"),
        (f"w0/{'9' * 5000}/7", "no record of exchange"),
        (f"w0/2/{'9' * 5000}", "no record of exchange"),
    ],
)
def test_what_is_not_there(made: AJournal, wanted: str, words: str) -> None:
    with pytest.raises(NotProvable, match=words):
        list(find(made.journal, wanted))


def test_a_line_that_is_not_signed_yet(made: AJournal) -> None:
    made.write("w0")
    with pytest.raises(NotProvable, match="not signed yet"):
        proved(made, "w0/3/13")


def test_a_line_whose_manifest_was_dropped(made: AJournal) -> None:
    made.drop_manifests(2)
    with pytest.raises(NotProvable, match="its manifest was dropped"):
        proved(made, "w0/1/2")


def test_a_line_that_is_not_what_was_signed(made: AJournal) -> None:
    path = made.path("w0", 2)
    path.write_bytes(path.read_bytes().replace(b"x-w0-8", b"x-w0-9"))
    for wanted in ("w0/2/8", "w0/2/7"):  # nor can its neighbours under one root be
        with pytest.raises(NotProvable, match="not those it signed"):
            proved(made, wanted)


def test_a_manifest_that_cannot_be_read(made: AJournal) -> None:
    path = made.manifest_path(1)
    path.write_bytes(b"rubbish\n" + path.read_bytes())
    with pytest.raises(NotProvable, match="gateway audit verify"):
        proved(made, "w0/1/2")


def test_a_key_that_is_not_at_hand_is_left_out(made: AJournal) -> None:
    (entry,) = find(made.journal, "w0/2/7")
    assert prove(made.journal, entry, {}).public == ""


# --- checking -------------------------------------------------------------------------------------------------------


def test_by_the_key_that_it_brings(made: AJournal) -> None:
    shown = check(encode(proved(made, "w0/2/7")), {})
    assert not shown.trusted


def test_by_the_key_that_took_over_with_its_manifest(made: AJournal) -> None:
    proof = proved(made, "w0/2/7")  # the old key signed, and handed over
    assert check(encode(proof), read_keys([made.public])).trusted


def altered(proof: Proof, **changes: object) -> bytes:
    return msgspec.json.encode(msgspec.to_builtins(proof) | changes)


ALTERATIONS: list[tuple[str, Callable[[Proof], dict[str, object]]]] = [
    ("its leaf is not", lambda p: {"line": p.line.replace("x-w0-7", "x-w0-8")}),
    ("its leaf is not", lambda _: {"leaf": "0" * 64}),
    ("does not cover line", lambda p: {"index": p.index + 1}),
    ("are not those of its manifest", lambda p: {"size": p.size + 1}),
    ("are not those of its manifest", lambda _: {"key": "0" * 16}),
    ("path does not lead", lambda p: {"path": p.path[:-1]}),
    ("path does not lead", lambda p: {"path": (*p.path, "0" * 64)}),
    ("path does not lead", lambda p: {"path": ("0" * 64, *p.path[1:])}),
    ("path does not lead", lambda p: {"path": ("ab", *p.path[1:])}),
    ("signature of its manifest", lambda p: {"manifest": p.manifest.replace('"at_us":1', '"at_us":2')}),
    ("it is no proof", lambda p: {"manifest": p.manifest + " "}),
    ("it is no proof", lambda p: {"line": p.line[:-1]}),
    ("it is no proof", lambda p: {"line": p.line.replace("outcome", "outcomes")}),
    ("it is no proof", lambda _: {"path": ("zz",)}),
    ("it is no proof", lambda _: {"more": 1}),
    ("its id is", lambda _: {"id": f"{NODE}/w0/2/8"}),
    ("its id is", lambda _: {"id": "w0/2/7"}),
    ("its id is", lambda _: {"id": f"{NODE}/w0/x/7"}),
    ("its id is", lambda _: {"id": f"{NODE}/w0/{'9' * 5000}/7"}),
    ("are not those of its manifest", lambda _: {"id": f"{'0' * 32}/w0/2/7"}),
    ("does not cover line", lambda _: {"id": f"{NODE}/w1/2/7"}),
    ("does not cover line", lambda _: {"id": f"{NODE}/w9/2/7"}),
    ("does not cover line", lambda _: {"id": f"{NODE}/w0/3/7"}),
]


@pytest.mark.parametrize(("words", "change"), ALTERATIONS)
def test_an_altered_proof_proves_nothing(
    made: AJournal, keys: Keys, words: str, change: Callable[[Proof], dict[str, object]]
) -> None:
    proof = proved(made, "w0/2/7")
    with pytest.raises(BadProof, match=words):
        check(altered(proof, **change(proof)), keys)


def test_the_line_of_one_proof_in_another(made: AJournal, keys: Keys) -> None:
    one, other = proved(made, "w0/2/7"), proved(made, "w0/2/8")
    for changes in ({"line": other.line, "leaf": other.leaf}, {"line": other.line, "leaf": other.leaf, "id": other.id}):
        with pytest.raises(BadProof):
            check(altered(one, **changes), keys)


def test_a_key_that_is_not_trusted(made: AJournal) -> None:
    with pytest.raises(BadProof, match="none of those you trust"):
        check(encode(proved(made, "w0/2/7")), {STRANGER.key_id: STRANGER.public})


def test_a_handover_to_a_key_that_did_not_sign_it(made: AJournal) -> None:
    proof = proved(made, "w0/2/7")
    start = proof.manifest.index('"sig_next":"') + 12
    digit = "1" if proof.manifest[start] == "0" else "0"
    forged = proof.manifest[:start] + digit + proof.manifest[start + 1 :]
    with pytest.raises(BadProof, match="signature of its manifest"):
        check(altered(proof, manifest=forged), read_keys([made.public]))


@pytest.mark.parametrize("public", ["", "zz", STRANGER.public.hex()])
def test_a_proof_that_brings_no_key_that_fits(made: AJournal, public: str) -> None:
    with pytest.raises(BadProof, match=r"--public-key|none of those"):
        check(altered(proved(made, "w0/2/7"), public=public), {})


@pytest.mark.parametrize("document", [b"", b"{}", b"[]", b"\xff", b'{"v":1}'])
def test_what_is_no_proof(document: bytes) -> None:
    with pytest.raises(BadProof, match="it is no proof"):
        check(document, {})


def test_its_fields_are_named_for_those_who_check_it_elsewhere(made: AJournal) -> None:
    document: dict[str, Any] = msgspec.json.decode(encode(proved(made, "w0/2/7")))
    assert list(document) == ["v", "id", "line", "leaf", "index", "size", "path", "manifest", "key", "public"]
    assert document["v"] == 1
