"""A key is a digest from the moment it is read."""

import hashlib
import re
from datetime import UTC, datetime

import msgspec
import pytest

from gateway.config.keys import KeyRecord, digest, digest_of, hashed, new_secret, record_of
from gateway.config.limits import Allowance
from gateway.config.schema import Key
from gateway.config.secrets import Secret


def test_a_new_secret_is_long_safe_and_never_the_same() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"gw-[A-Za-z0-9_-]{43}", secret) for secret in made)


def test_a_secret_and_its_hash_are_the_same_key() -> None:
    expected = hashlib.sha256(b"gw-x").digest()
    assert digest(b"gw-x") == digest_of("gw-x") == digest_of(hashed("gw-x")) == expected


@pytest.mark.parametrize("bad", ["sha256:", "sha256:" + "g" * 64, "sha256:" + "A" * 64, "sha256:" + "a" * 63])
def test_a_malformed_hash_is_not_taken_for_a_secret(bad: str) -> None:
    with pytest.raises(ValueError, match="gateway keys hash"):
        digest_of(bad)


def test_a_record_says_what_the_key_says() -> None:
    key = Key(
        id="demo",
        secret=Secret("gw-x"),
        org="acme",
        role="analyst",
        labels={"app": "x"},
        data_class="internal",
        models=("a*",),
        disabled=True,
        expires_at=datetime(2027, 1, 1, tzinfo=UTC),
        tpm=5,
        usd_per_month=0.5,
    )
    assert record_of(key) == KeyRecord(
        digest(b"gw-x"),
        "demo",
        "acme",
        labels={"app": "x"},
        models=("a*",),
        disabled=True,
        expires_ms=1798761600000,
        allowance=Allowance(tpm=5, usd_per_month=0.5),
        role="analyst",
        data_class="internal",
    )
    plain = record_of(Key(id="a", secret=Secret("b")))
    assert (plain.expires_ms, plain.allowance) == (0, None)


def test_records_of_before_there_were_limits_can_be_read() -> None:
    old = msgspec.msgpack.encode([b"d", "demo", "acme", "", "", {}, ["*"], False, 0, True])
    assert msgspec.msgpack.decode(old, type=KeyRecord) == KeyRecord(b"d", "demo", "acme", edited=True)
    new = KeyRecord(b"d", "demo", allowance=Allowance(rpm=1))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(new), type=KeyRecord) == new


def test_records_of_before_there_were_roles_can_be_read() -> None:
    old = msgspec.msgpack.encode([b"d", "demo", "acme", "", "", {}, ["*"], False, 0, True, {"rpm": 1}])
    known = KeyRecord(b"d", "demo", "acme", edited=True, allowance=Allowance(rpm=1))
    assert msgspec.msgpack.decode(old, type=KeyRecord) == known
    new = KeyRecord(b"d", "demo", role="analyst", data_class="internal")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(new), type=KeyRecord) == new
