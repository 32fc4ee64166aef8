"""The key of people's names: where it comes from, that it stays, and that nobody else reads it."""

import errno
import logging
import stat
from hashlib import blake2b
from pathlib import Path

import pytest

from gateway.config.limits import Limits, Rule
from gateway.config.secrets import Secret
from gateway.limiter import namekey
from gateway.limiter.namekey import FILE, KEY_BYTES, NoNameKey, name_key, settle_on

STORE = Secret("redis://h")
ONE, OTHER = Secret("one secret of the fleet"), Secret("another secret of it")
PEOPLE = (Rule(name="each", per=("org", "user"), requests=1, every="minute"),)


def settled(limits: Limits, state_dir: Path) -> bytes:
    settle_on(limits, state_dir)
    return name_key(state_dir)


def test_a_node_by_itself_has_a_key_that_nobody_knows_and_keeps_it(tmp_path: Path) -> None:
    one, other = settled(Limits(), tmp_path / "one"), settled(Limits(), tmp_path / "other")
    assert len(one) == KEY_BYTES
    assert one != other
    assert settled(Limits(domain="else", rules=PEOPLE), tmp_path / "one") == one
    assert settled(Limits(store=Secret("embedded")), tmp_path / "one") == one


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    settle_on(Limits(), tmp_path / "state")
    assert stat.S_IMODE((tmp_path / "state" / FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


@pytest.mark.parametrize("store", [None, STORE])
def test_nodes_with_one_secret_have_one_key_which_is_not_the_secret(store: Secret | None, tmp_path: Path) -> None:
    limits = Limits(store=store, secret=ONE)
    key = settled(limits, tmp_path / "a")
    assert settled(limits, tmp_path / "b") == key
    assert settled(Limits(store=store, secret=OTHER), tmp_path / "b") != key
    assert ONE.reveal() not in (tmp_path / "a" / FILE).read_text()
    assert len(key) == KEY_BYTES


def test_nodes_of_a_store_without_a_secret_share_the_domain(tmp_path: Path) -> None:
    assert settled(Limits(store=STORE, domain="eu"), tmp_path) == b"eu"
    assert len(settled(Limits(store=STORE, domain="d" * 256), tmp_path)) == 64


def test_what_is_no_secret_is_never_kept_as_a_nodes_own_key(tmp_path: Path) -> None:
    for limits in (Limits(store=STORE), Limits(secret=ONE)):
        before = settled(limits, tmp_path)
        assert settled(Limits(), tmp_path) != before


@pytest.mark.parametrize("scope", ["user", "end_user"])
def test_names_that_can_be_guessed_are_warned_of(scope: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rule = Rule(name="each", per=("org", scope), requests=1, every="minute")
    settle_on(Limits(store=STORE, rules=(rule, Rule(name="all", requests=1, every="minute"))), tmp_path)
    (told,) = caplog.messages
    assert "limits.secret is not set (each)" in told


@pytest.mark.parametrize(
    "limits",
    [
        Limits(store=STORE, secret=ONE, rules=PEOPLE),
        Limits(rules=PEOPLE),
        Limits(store=STORE, rules=(Rule(name="k", per=("key",), requests=1, every="minute"),)),
    ],
)
def test_nothing_is_said_where_nothing_can_be_guessed(
    limits: Limits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settle_on(limits, tmp_path)
    assert caplog.messages == []


DAMAGED = ["", "random", "random xyz", "random ", "else 00", f"random {'00' * 65}", "random 00 11", "zufällig 00"]


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_file_is_told_and_made_anew(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(NoNameKey, match="missing or damaged: a restart of the node writes it anew"):
        name_key(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert len(settled(Limits(), tmp_path)) == KEY_BYTES
    assert "damaged and made anew" in caplog.text


def test_a_missing_file_is_told_to_readers_and_is_no_news_at_a_first_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(NoNameKey, match=r"limits\.key is missing"):
        name_key(tmp_path)
    settle_on(Limits(), tmp_path)
    assert caplog.messages == []


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(NoNameKey, match=r"cannot be read: .*: the gateway's user must own it"):
        name_key(tmp_path)


def test_a_full_disk_leaves_the_key_there_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = settled(Limits(), tmp_path)

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gateway.config.files.os.fsync", full)
    assert settled(Limits(), tmp_path) == key, "what is there needs no room"
    with pytest.raises(OSError, match="No space left"):
        settle_on(Limits(secret=ONE), tmp_path)
    assert name_key(tmp_path) == key
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_the_longest_key_that_is_kept_is_the_longest_that_digests_take() -> None:
    blake2b(b"", key=bytes(namekey.MAX_KEY_BYTES))
    with pytest.raises(ValueError, match="maximum key length"):
        blake2b(b"", key=bytes(namekey.MAX_KEY_BYTES + 1))
