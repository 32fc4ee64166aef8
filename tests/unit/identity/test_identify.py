"""A credential becomes the principal of its key, or the right refusal."""

from pathlib import Path

import pytest

from gateway.config.keyfile import KeyFile, build
from gateway.config.keyindex import KeyIndex, Overlay
from gateway.config.keys import KeyRecord, digest
from gateway.config.limits import Allowance
from gateway.errors import GatewayError, InvalidCredential, KeyDisabled, KeyExpired
from gateway.identity import identify
from gateway.identity.identify import Identity, Principal

NOW_MS = 1_800_000_000_000


def key(name: str, **said: object) -> KeyRecord:
    return KeyRecord(digest(f"gw-{name}".encode()), name, **said)  # type: ignore[arg-type]


RECORDS = [
    key(
        "demo",
        org="acme",
        team="search",
        user="ann",
        role="analyst",
        labels={"app": "ui"},
        data_class="internal",
        models=("a", "b/*"),
        allowance=Allowance(rpm=5),
    ),
    key("off", disabled=True),
    key("old", expires_ms=NOW_MS),
    key("young", expires_ms=NOW_MS + 1),
]


@pytest.fixture
def revoked() -> set[str]:
    return set()


@pytest.fixture
def identity(tmp_path: Path, revoked: set[str]) -> Identity:
    build(tmp_path / "k", RECORDS)
    return Identity(KeyIndex(KeyFile(tmp_path / "k"), Overlay(), revoked))


def test_a_key_speaks_for_whom_it_says(identity: Identity) -> None:
    for _ in range(2):  # looked up, then remembered
        assert identity.authenticate(digest(b"gw-demo"), NOW_MS) == Principal(
            "demo",
            org="acme",
            team="search",
            user="ann",
            role="analyst",
            labels={"app": "ui"},
            data_class="internal",
            models=("a", "b/*"),
            allowance=Allowance(rpm=5),
        )


REFUSALS: list[tuple[bytes, type[GatewayError], int]] = [
    (b"gw-nobody", InvalidCredential, 401),
    (b"", InvalidCredential, 401),
    (b"gw-off", KeyDisabled, 403),
    (b"gw-old", KeyExpired, 401),
]


@pytest.mark.parametrize(("credential", "error", "status"), REFUSALS)
def test_refusals(identity: Identity, credential: bytes, error: type[GatewayError], status: int) -> None:
    for _ in range(2):
        with pytest.raises(error) as raised:
            identity.authenticate(digest(credential), NOW_MS)
        assert raised.value.status == status
        assert "gw-" not in raised.value.message


def test_time_is_looked_at_on_every_request(identity: Identity) -> None:
    assert identity.authenticate(digest(b"gw-young"), NOW_MS).key_id == "young"
    with pytest.raises(KeyExpired):
        identity.authenticate(digest(b"gw-young"), NOW_MS + 1)


def test_a_revocation_acts_on_the_next_request_though_the_key_is_remembered(
    identity: Identity, revoked: set[str]
) -> None:
    identity.authenticate(digest(b"gw-demo"), NOW_MS)
    revoked.add("demo")
    with pytest.raises(KeyDisabled):
        identity.authenticate(digest(b"gw-demo"), NOW_MS)


def test_a_hash_in_the_place_of_a_secret_is_no_credential(identity: Identity) -> None:
    with pytest.raises(InvalidCredential):
        identity.authenticate(digest(b"sha256:" + digest(b"gw-demo").hex().encode()), NOW_MS)


def test_what_is_remembered_is_bounded_and_never_a_plaintext(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identify, "CACHED", 2)
    for name in (b"gw-demo", b"gw-young", b"gw-demo", b"gw-young"):
        identity.authenticate(digest(name), NOW_MS)
    with pytest.raises(KeyDisabled):
        identity.authenticate(digest(b"gw-off"), NOW_MS)
    assert set(identity._cache) == {digest(b"gw-off")}


def test_unknown_credentials_leave_nothing_behind(identity: Identity) -> None:
    for number in range(100):
        with pytest.raises(InvalidCredential):
            identity.authenticate(digest(b"gw-%d" % number), NOW_MS)
    assert identity._cache == {}


@pytest.mark.parametrize(
    ("models", "model", "allowed"),
    [
        (("*",), "anything", True),
        (("a",), "a", True),
        (("a",), "ab", False),
        (("b/*",), "b/c", True),
        (("b/*",), "b", False),
        (("a", "b/*"), "b/x", True),
        ((), "a", False),
    ],
)
def test_which_models_a_key_may_use(models: tuple[str, ...], model: str, allowed: bool) -> None:
    assert Principal("k", models=models).allows(model) is allowed
