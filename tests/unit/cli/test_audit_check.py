"""What `gateway audit verify`, `prove`, `check-proof`, `anchor` and `keys` say, and the codes they end with."""

import io
import json
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from gateway.cli import audit_check
from gateway.journal import signing
from tests.fakes.a_journal import NODE, AJournal, a_whole_journal

Said = pytest.CaptureFixture[str]


@pytest.fixture
def made(tmp_path: Path) -> AJournal:
    return a_whole_journal(tmp_path / "state")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.yaml"
    path.write_text(
        "state_dir: ./state\nproviders: {one: {kind: openai, api_key: sk-x}}\n"
        "models: {gpt: {targets: [{provider: one, model: gpt}]}}\nkeys: [{id: demo, secret: gw-x}]\n"
    )
    return path


def given(directory: Path | None = None, **more: object) -> Namespace:
    return Namespace(
        **{
            "directory": None if directory is None else str(directory), "config": "gateway.yaml", "set": [],
            "public_key": [], "since": None, "progress": False, "json": False, **more,
        }
    )  # fmt: skip


# --- which journal --------------------------------------------------------------------------------------------------


def test_a_journal_is_named_by_itself_its_state_dir_or_its_config(made: AJournal, config: Path) -> None:
    for words in (given(made.journal), given(made.state_dir), given(config=str(config))):
        assert audit_check.journal_of(words).resolve() == made.journal


def test_a_config_that_cannot_be_read(tmp_path: Path, capsys: Said) -> None:
    for run in (audit_check.verify, audit_check.keys_list, audit_check.keys_rotate, audit_check.anchor):
        assert run(given(config=str(tmp_path / "none.yaml"))) == 1
        assert "none.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "nowhere"])
def test_a_directory_without_a_journal_was_not_checked(tmp_path: Path, name: str, capsys: Said) -> None:
    assert audit_check.verify(given(tmp_path / name)) == 2
    assert "gateway: " in capsys.readouterr().err


# --- verify ---------------------------------------------------------------------------------------------------------


def test_a_journal_that_is_verified(made: AJournal, capsys: Said) -> None:
    assert audit_check.verify(given(made.state_dir, public_key=[made.public])) == 0
    out, err = capsys.readouterr()
    said = out.splitlines()
    assert said[0] == f"journal    {made.journal}, node {NODE}"
    assert said[1].startswith("chain      w0       lines 0–12, ")
    assert said[1].endswith(" bytes, all signed")
    assert "signatures checked, 2 vouched for by later ones" in said[4]
    assert said[-1].startswith("verified: 24 lines, ")
    assert err == ""


def test_without_a_key_the_words_are_there(made: AJournal, capsys: Said) -> None:
    assert audit_check.verify(given(made.state_dir)) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("integrity only: 24 lines")
    assert "--public-key" in last


def test_a_finding_names_the_record_and_what_it_means(made: AJournal, capsys: Said) -> None:
    path = made.path("w0", 2)
    path.write_bytes(path.read_bytes().replace(b"x-w0-8", b"x-w0-9", 1))
    assert audit_check.verify(given(made.state_dir)) == 1
    out = capsys.readouterr().out
    assert "FINDING    w0/2/8 at byte " in out
    assert "this line was changed" in out
    assert "not whole" in out
    assert out.splitlines()[-1].startswith("1 finding: this journal cannot be trusted")


def test_from_a_checkpoint(made: AJournal, tmp_path: Path, capsys: Said) -> None:
    anchor = tmp_path / "anchor.jsonl"
    anchor.write_bytes(made.manifests[4] + b"\n")
    assert audit_check.verify(given(made.state_dir, public_key=[made.public], since=str(anchor))) == 0
    out = capsys.readouterr().out
    assert "nothing to read from line 9 on" in out
    assert out.splitlines()[-1].endswith(", from manifest 4 on")
    assert audit_check.verify(given(made.state_dir, public_key=[made.public], since="5")) == 0
    assert "manifests  none read after number 5" in capsys.readouterr().out


def test_what_is_not_signed_yet_is_said(made: AJournal, capsys: Said) -> None:
    made.write("w0", 2)
    assert audit_check.verify(given(made.state_dir)) == 0
    assert "the last 2 not signed" in capsys.readouterr().out


def test_a_note_is_no_finding(made: AJournal, capsys: Said) -> None:
    made.raise_floor("w0", 2)
    assert audit_check.verify(given(made.state_dir, public_key=[made.public])) == 0
    assert "note       w0: segments before 2" in capsys.readouterr().out


def test_as_one_document(made: AJournal, capsys: Said) -> None:
    assert audit_check.verify(given(made.state_dir, json=True)) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["verdict"], document["ok"], document["lines"]) == ("integrity only", True, 24)
    assert [chain["chain"] for chain in document["chains"]] == ["w0", "w1", "control"]
    made.path("w1", 2).unlink()
    assert audit_check.verify(given(made.state_dir, json=True)) == 1
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["fault"], finding["where"], finding["seq"]) == ("cut", "w1/1/6", 6)
    assert finding["meaning"] == "lines that were signed are no longer there"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"public_key": ["zz"]}, "zz is no public key"),
        ({"since": "/nowhere"}, "/nowhere is no number"),
    ],
)
def test_words_that_name_nothing(made: AJournal, more: dict[str, object], words: str, capsys: Said) -> None:
    assert audit_check.verify(given(made.state_dir, **more)) == 2
    assert words in capsys.readouterr().err


def test_the_bar_is_drawn_where_it_is_asked_for(made: AJournal, capsys: Said) -> None:
    assert audit_check.verify(given(made.state_dir, progress=True)) == 0
    assert "100%" in capsys.readouterr().err


def test_a_file_that_goes_away_meanwhile(made: AJournal, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", "w0/0000000001.jsonl")

    monkeypatch.setattr("gateway.journal.verify.verify", gone)
    assert audit_check.verify(given(made.state_dir)) == 1
    assert "verify again" in capsys.readouterr().err


# --- proofs ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def proof(made: AJournal, tmp_path: Path, capsys: Said) -> Path:
    assert audit_check.prove(given(made.state_dir, id="w0/2/7")) == 0
    path = tmp_path / "proof.json"
    path.write_text(capsys.readouterr().out)
    return path


def test_a_proof_is_made_and_checked(made: AJournal, proof: Path, capsys: Said) -> None:
    key = str(made.signing)
    assert audit_check.check_proof(Namespace(file=str(proof), public_key=[key])) == 0
    said = capsys.readouterr().out
    assert said == f"proved: {NODE}/w0/2/7, outcome x-w0-7, was in the journal by 2027-01-15T08:00:00Z (manifest 2)\n"


def test_by_its_own_key_it_is_integrity_only(proof: Path, capsys: Said) -> None:
    assert audit_check.check_proof(Namespace(file=str(proof), public_key=[])) == 0
    assert capsys.readouterr().out.startswith("integrity only (by the key that the proof brings, ")


def test_from_standard_input_and_several(
    made: AJournal, proof: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert audit_check.prove(given(made.journal, id="w1/1/1", public_key=[str(made.signing)])) == 0
    both = proof.read_text() + "\n" + capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(both.encode())))
    assert audit_check.check_proof(Namespace(file="-", public_key=[str(made.signing)])) == 0
    assert capsys.readouterr().out.count("proved: ") == 2


def test_an_altered_proof(proof: Path, capsys: Said) -> None:
    proof.write_text(proof.read_text().replace("x-w0-7", "x-w0-\x1b7"))
    assert audit_check.check_proof(Namespace(file=str(proof), public_key=[])) == 1
    said = capsys.readouterr().err
    assert "NOT PROVED" in said
    assert "\x1b" not in said


def test_an_empty_proof(tmp_path: Path, capsys: Said) -> None:
    (tmp_path / "proof").write_text("\n")
    assert audit_check.check_proof(Namespace(file=str(tmp_path / "proof"), public_key=[])) == 1
    assert "is empty" in capsys.readouterr().err


def test_words_that_name_no_proof_or_key(proof: Path, capsys: Said) -> None:
    assert audit_check.check_proof(Namespace(file="/nowhere", public_key=[])) == 2
    assert audit_check.check_proof(Namespace(file=str(proof), public_key=["zz"])) == 2
    assert capsys.readouterr().err.count("gateway: ") == 2


def test_a_record_that_cannot_be_proved(made: AJournal, capsys: Said) -> None:
    assert audit_check.prove(given(made.state_dir, id="w0/2/99")) == 1
    assert "there is no line 99" in capsys.readouterr().err


def test_a_proof_from_no_journal(tmp_path: Path, made: AJournal, capsys: Said) -> None:
    assert audit_check.prove(given(tmp_path / "nowhere", id="w0/2/7")) == 2
    assert audit_check.prove(given(made.state_dir, id="w0/2/7", public_key=["zz"])) == 2
    assert "gateway: " in capsys.readouterr().err


# --- anchors --------------------------------------------------------------------------------------------------------


def test_anchoring_now(made: AJournal, config: Path, tmp_path: Path, capsys: Said) -> None:
    anchors = f"journal.anchors=[{{kind: file, path: {tmp_path}/worm}}]"
    assert audit_check.anchor(given(config=str(config), set=[anchors])) == 0
    assert capsys.readouterr().out.startswith(f"manifest 5 is at {tmp_path}/worm/{NODE}/")
    (file,) = (tmp_path / "worm" / NODE).iterdir()
    assert audit_check.verify(given(made.state_dir, since=str(file))) == 0


def test_an_anchor_that_does_not_take_it(made: AJournal, config: Path, tmp_path: Path, capsys: Said) -> None:
    (tmp_path / "worm").write_text("a file")
    anchors = f"journal.anchors=[{{kind: file, path: {tmp_path}/worm}}]"
    assert audit_check.anchor(given(config=str(config), set=[anchors])) == 1
    assert "cannot be written" in capsys.readouterr().err
    assert made.manifests


def test_nowhere_to_anchor(config: Path, capsys: Said) -> None:
    assert audit_check.anchor(given(config=str(config))) == 2
    assert "journal.anchors is empty" in capsys.readouterr().err


def test_nothing_to_anchor(config: Path, tmp_path: Path, capsys: Said) -> None:
    AJournal(tmp_path / "state")
    anchors = f"journal.anchors=[{{kind: file, path: {tmp_path}/worm}}]"
    assert audit_check.anchor(given(config=str(config), set=[anchors])) == 1
    assert "holds no manifest" in capsys.readouterr().err


# --- keys -----------------------------------------------------------------------------------------------------------


def test_keys_are_listed_and_exported(made: AJournal, config: Path, capsys: Said) -> None:
    assert audit_check.keys_list(given(config=str(config))) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2
    assert [line for line in said if line.endswith("  signs")] == [f"{made.signer.key_id}  signs"]
    assert audit_check.keys_export(given(config=str(config), all=False)) == 0
    assert capsys.readouterr().out == made.public + "\n"
    assert audit_check.keys_export(given(config=str(config), all=True)) == 0
    assert made.public in capsys.readouterr().out.split()


def test_what_is_exported_verifies(made: AJournal, config: Path, tmp_path: Path, capsys: Said) -> None:
    assert audit_check.keys_export(given(config=str(config), all=False)) == 0
    (tmp_path / "node.pub").write_text(capsys.readouterr().out)
    assert audit_check.verify(given(made.state_dir, public_key=[str(tmp_path / "node.pub")])) == 0
    assert "verified: " in capsys.readouterr().out


def test_a_key_before_anything_was_signed(config: Path, tmp_path: Path, capsys: Said) -> None:
    made = AJournal(tmp_path / "state")
    assert audit_check.keys_export(given(config=str(config), all=False)) == 0
    assert capsys.readouterr().out == made.public + "\n"


def test_no_keys_at_all(config: Path, tmp_path: Path, capsys: Said) -> None:
    (tmp_path / "state").mkdir()
    assert audit_check.keys_list(given(config=str(config))) == 1
    assert "the first is made when the gateway starts" in capsys.readouterr().err


def test_a_new_key_is_asked_for(made: AJournal, config: Path, capsys: Said) -> None:
    assert audit_check.keys_rotate(given(config=str(config))) == 0
    assert signing.rotation_requested(made.signing)
    assert "the next manifest hands over" in capsys.readouterr().out


def test_keys_that_cannot_be_used(made: AJournal, config: Path, capsys: Said) -> None:
    (made.signing / "0000000000000000.pub").write_text("ab" * 32)
    assert audit_check.keys_list(given(config=str(config))) == 1
    assert audit_check.prove(given(made.state_dir, id="w0/2/7")) == 1
    assert capsys.readouterr().err.count("restore it") == 2
