"""Keys at a shell: hashed, made, revoked, with nothing else at hand."""

import io
from pathlib import Path

import pytest

from gateway.config.boot import boot_snapshot
from gateway.config.commands import DONE, REFUSED, keys_hash, keys_new, keys_revoke
from gateway.config.keyindex import Overlay
from gateway.config.keys import KeyRecord, hashed
from gateway.config.revocations import Revocations
from gateway.config.snapshot import SnapshotStore


def test_a_hash_of_an_argument_or_of_what_is_typed() -> None:
    for secret in ("gw-x", None, "-"):
        out = io.StringIO()
        assert keys_hash(secret, out, lambda: "gw-x\n") == DONE
        assert out.getvalue() == hashed("gw-x") + "\n"


def test_standard_input_is_read_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("gw-x\nrest"))
    out = io.StringIO()
    assert keys_hash("-", out) == DONE
    assert out.getvalue() == hashed("gw-x") + "\n"


@pytest.mark.parametrize("secret", ["", "  ", "sha256:00"])
def test_what_is_no_secret_is_not_hashed(secret: str) -> None:
    out = io.StringIO()
    assert keys_hash(secret, out) == REFUSED
    assert "sha256:" not in out.getvalue()


def test_a_new_key_comes_with_its_hash() -> None:
    out = io.StringIO()
    assert keys_new(out) == DONE
    (_, secret), (_, kept) = (line.split() for line in out.getvalue().splitlines())
    assert kept == hashed(secret)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "gateway.yaml"
    file.write_text("keys: [{id: demo, secret: gw-x}]\n")
    return file


def revoke(path: Path, key_id: str, *, force: bool = False) -> tuple[int, str]:
    out = io.StringIO()
    code = keys_revoke(key_id, str(path), (), out, now_ms=5, force=force)
    return code, out.getvalue()


def revoked(path: Path) -> set[str]:
    return Revocations(path.parent / "state").read()


def test_a_key_of_the_config_is_revoked_though_no_variable_is_set_and_nothing_ever_ran(path: Path) -> None:
    path.write_text("admin: {token: '${UNSET}'}\nkeys: [{id: demo, secret: '${ALSO_UNSET}'}]\n")
    assert revoke(path, "demo") == (DONE, "key demo is revoked\n")
    assert revoked(path) == {"demo"}
    assert revoke(path, "demo") == (DONE, "key demo was revoked already\n")


def test_a_key_that_only_the_snapshot_knows_is_revoked(path: Path) -> None:
    boot_snapshot(path)
    SnapshotStore(path.parent / "state").edit(Overlay().put(KeyRecord(bytes(32), "made")))
    assert revoke(path, "made")[0] == DONE
    assert revoked(path) == {"made"}


def test_a_misspelled_id_revokes_nothing_and_says_so(path: Path) -> None:
    code, said = revoke(path, "demp")
    assert code == REFUSED
    assert 'did you mean "demo"' in said
    assert revoked(path) == set()
    assert revoke(path, "demp", force=True)[0] == DONE
    assert revoked(path) == {"demp"}


def test_a_damaged_snapshot_does_not_keep_a_key_alive(path: Path) -> None:
    boot_snapshot(path)
    for file in (path.parent / "state" / "snapshots").glob("*.snapshot"):
        file.write_bytes(b"damaged")
    assert revoke(path, "demo")[0] == DONE


def test_a_config_that_cannot_be_read_is_said(path: Path) -> None:
    path.write_text("a: [")
    code, said = revoke(path, "demo")
    assert code == REFUSED
    assert "is not YAML" in said


def test_what_cannot_be_written_is_said_loudly(path: Path) -> None:
    (path.parent / "state").write_text("in the way")
    code, said = revoke(path, "demo")
    assert code == REFUSED
    assert "NOT revoked" in said
