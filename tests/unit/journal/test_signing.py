"""One key at a time, whatever dies when: two starts agree, a change of keys is finished or as if never begun."""

import multiprocessing
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.journal import signing
from gateway.journal.signing import (
    Signer,
    SigningError,
    key_id_of,
    load_signer,
    public_keys,
    request_rotation,
    rotate,
    rotation_requested,
    switch,
    verify_signature,
)

SEED = bytes(range(32))
PUBLIC = "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"  # of SEED, by openssl


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "signing"


class Died(BaseException):
    """Stands for SIGKILL: nothing after it runs in the code under test, save what `finally` and `with` do."""


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()} - {"lock"}


# --- signatures -----------------------------------------------------------------------------------------------------


def test_a_known_key() -> None:
    signer = Signer(SEED)
    assert signer.public.hex() == PUBLIC
    assert signer.key_id == key_id_of(bytes.fromhex(PUBLIC)) == "56475aa75463474c"
    assert SEED.hex() not in repr(signer)


def test_the_first_key_is_named_as_the_one_in_use(keys: Path) -> None:
    assert not signing.has_signer(keys)
    load_signer(keys)
    assert signing.has_signer(keys)


def test_only_what_was_signed_verifies() -> None:
    signer, other = Signer(SEED), Signer(SEED[::-1])
    signature = signer.sign(b"this")
    assert verify_signature(signer.public, b"this", signature)
    assert not verify_signature(signer.public, b"that", signature)
    assert not verify_signature(other.public, b"this", signature)
    assert not any(
        verify_signature(signer.public, b"this", signature[:at] + bytes([signature[at] ^ 1]) + signature[at + 1 :])
        for at in range(len(signature))
    )


@pytest.mark.parametrize(("public", "signature"), [(b"", b""), (b"x" * 31, bytes(64)), (bytes(32), b"short")])
def test_what_is_no_key_or_signature_verifies_nothing(public: bytes, signature: bytes) -> None:
    assert verify_signature(public, b"this", signature) is False


# --- the first key --------------------------------------------------------------------------------------------------


def test_the_first_key_is_made_once_and_for_this_user_alone(keys: Path) -> None:
    signer = load_signer(keys)
    assert load_signer(keys).public == signer.public
    assert names(keys) == {f"{signer.key_id}.key", f"{signer.key_id}.pub", "current"}
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys.iterdir()} == {0o600}
    assert public_keys(keys) == {signer.key_id: signer.public}
    assert (keys / "current").read_text() == signer.key_id + "\n"


def test_no_two_first_keys_are_alike(tmp_path: Path) -> None:
    assert load_signer(tmp_path / "a").key_id != load_signer(tmp_path / "b").key_id


def _load(directory: str) -> str:
    return load_signer(Path(directory)).key_id


def test_processes_that_start_at_once_use_one_key(keys: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        found = pool.map(_load, [str(keys)] * 16, chunksize=1)
    assert len(set(found)) == 1
    assert len(list(keys.glob("*.key"))) == len(list(keys.glob("*.pub"))) == 1


def steps_of(work: Callable[[], object], monkeypatch: pytest.MonkeyPatch, die_at: int) -> bool:
    """Run `work`, dying before its `die_at`-th change to the disk; False when it came to its end."""
    count = 0

    def before(real: Callable[..., object]) -> Callable[..., object]:
        def step(*args: object, **options: object) -> object:
            nonlocal count
            count += 1
            if count == die_at:
                raise Died
            return real(*args, **options)

        return step

    with monkeypatch.context() as patch:
        for name in ("rename", "replace", "unlink"):
            patch.setattr(Path, name, before(getattr(Path, name)))
        patch.setattr(os, "fsync", before(os.fsync))
        try:
            work()
        except Died:
            return True
    return False


def test_dying_anywhere_while_the_first_key_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    die_at, died = 0, True
    while died:
        die_at += 1
        keys = tmp_path / str(die_at)
        died = steps_of(lambda keys=keys: load_signer(keys), monkeypatch, die_at)  # type: ignore[misc]
        signer = load_signer(keys)
        assert load_signer(keys).key_id == signer.key_id
        assert verify_signature(public_keys(keys)[signer.key_id], b"x", signer.sign(b"x"))
    assert die_at > 6


# --- a change of keys -----------------------------------------------------------------------------------------------


def test_a_change_of_keys(keys: Path) -> None:
    old = load_signer(keys)
    request_rotation(keys)
    assert rotation_requested(keys)
    new = rotate(keys)
    assert rotate(keys).key_id == new.key_id  # an attempt that failed is gone on with
    assert load_signer(keys).key_id == old.key_id
    assert switch(keys, new.key_id).key_id == load_signer(keys).key_id == new.key_id
    assert names(keys) == {f"{new.key_id}.key", f"{new.key_id}.pub", f"{old.key_id}.pub", "current"}
    assert public_keys(keys) == {old.key_id: old.public, new.key_id: new.public}
    assert not rotation_requested(keys)
    assert switch(keys, new.key_id).key_id == new.key_id
    assert rotate(keys).key_id not in {old.key_id, new.key_id}


def test_a_key_already_made_to_follow_survives_the_end_of_the_change_before(keys: Path) -> None:
    load_signer(keys)
    current = rotate(keys)
    switch(keys, current.key_id)
    following = rotate(keys)
    switch(keys, current.key_id)
    assert switch(keys, following.key_id).key_id == following.key_id


def test_dying_anywhere_in_a_change_of_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    die_at, died = 0, True
    while died:
        die_at += 1
        keys = tmp_path / str(die_at)
        old = load_signer(keys)
        request_rotation(keys)
        synced = list[str]()

        def change(keys: Path = keys, synced: list[str] = synced) -> None:
            new = rotate(keys)
            synced.append(new.key_id)  # here a manifest is written that names it
            switch(keys, new.key_id)

        died = steps_of(change, monkeypatch, die_at)
        assert load_signer(keys).key_id in {old.key_id, *synced}  # whoever has to sign meanwhile can
        if synced:
            assert switch(keys, synced[0]).key_id == load_signer(keys).key_id == synced[0]
            assert not rotation_requested(keys)
            assert [path.stem for path in keys.glob("*.key")] == synced
        else:
            assert load_signer(keys).key_id == old.key_id
            assert rotation_requested(keys)
            assert switch(keys, rotate(keys).key_id).key_id != old.key_id
            assert len(list(keys.glob("*.key"))) == 1
        assert old.key_id in public_keys(keys)
    assert die_at > 9


def test_a_key_that_was_not_made_here_is_not_switched_to(keys: Path) -> None:
    old = load_signer(keys)
    with pytest.raises(SigningError, match="does not name it as its next: restore"):
        switch(keys, "0" * 16)
    assert load_signer(keys).key_id == old.key_id


# --- what can be wrong ----------------------------------------------------------------------------------------------


def test_a_missing_seed_is_said_and_never_replaced(keys: Path) -> None:
    signer = load_signer(keys)
    (keys / f"{signer.key_id}.key").unlink()
    with pytest.raises(SigningError, match=rf"{signer.key_id}\.key is missing: restore it from a copy"):
        load_signer(keys)
    assert not list(keys.glob("*.key"))


@pytest.mark.parametrize(
    ("suffix", "content", "said"),
    [
        ("key", b"", "does not hold a private key of 64"),
        ("key", SEED.hex().upper().encode(), "does not hold a private key of 64"),
        ("key", b"\xff" * 64, "does not hold a private key of 64"),
        ("key", SEED.hex().encode(), "do not belong together"),
        ("pub", PUBLIC.encode(), "do not belong together"),
        ("pub", b"zz", "does not hold a public key of 64"),
    ],
)
def test_a_damaged_key_is_said(keys: Path, suffix: str, content: bytes, said: str) -> None:
    signer = load_signer(keys)
    (keys / f"{signer.key_id}.{suffix}").write_bytes(content)
    with pytest.raises(SigningError, match=said):
        load_signer(keys)


def test_a_whole_pair_under_another_name_is_not_that_key(keys: Path) -> None:
    signer = load_signer(keys)
    other = Signer(SEED)
    (keys / f"{signer.key_id}.key").write_text(SEED.hex())
    (keys / f"{signer.key_id}.pub").write_text(other.public.hex())
    with pytest.raises(SigningError, match="do not belong together"):
        load_signer(keys)
    with pytest.raises(SigningError, match=f"holds key {other.key_id}"):
        public_keys(keys)


def test_a_pointer_that_points_nowhere(keys: Path) -> None:
    load_signer(keys)
    (keys / "current").write_text("../../key")
    with pytest.raises(SigningError, match="current names no key"):
        load_signer(keys)


def test_a_directory_that_cannot_be_used(keys: Path) -> None:
    keys.write_text("a file")
    with pytest.raises(SigningError, match="the gateway's user must be able to read and write there"):
        load_signer(keys)


def test_a_full_disk_is_a_signing_error(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SigningError, match="No space left on device"):
        load_signer(keys)


def test_where_there_are_no_keys(keys: Path) -> None:
    assert public_keys(keys) == {}
    assert not rotation_requested(keys)
    assert not keys.exists()


def test_a_key_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "x.pub").mkdir()
    with pytest.raises(SigningError, match=r"x\.pub cannot be read: Is a directory"):
        signing.read_public(tmp_path / "x.pub")
