"""A secret is used and never shown; a reference leads to exactly one value or to a sentence."""

import copy
import pickle
import traceback
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.secrets import (
    MAX_SECRET_BYTES,
    Secret,
    Surroundings,
    UnresolvedSecret,
    expand,
    is_reference,
    resolve,
)

HERE = Path("/nowhere")


@pytest.mark.parametrize("shown", [repr, str, "{}".format, "{0!r:>40}".format, "%s".__mod__, ascii])
def test_no_way_of_showing_a_secret_shows_it(shown: "type[str]") -> None:
    secret = Secret("sk-very-secret", "${KEY}")
    assert "very" not in shown(secret)
    assert secret.fingerprint in shown(secret)


def test_an_error_that_carries_a_secret_does_not_show_it() -> None:
    shown = traceback.format_exception(ValueError(Secret("sk-very-secret")))
    assert "very" not in "".join(shown)


def test_a_secret_cannot_be_pickled_or_copied_into_something_else() -> None:
    with pytest.raises(TypeError, match="reference"):
        pickle.dumps(Secret("x"))
    with pytest.raises(TypeError, match="reference"):
        copy.copy(Secret("x"))


def test_equal_secrets_are_equal_and_hash_alike_whatever_their_reference() -> None:
    assert Secret("a", "${A}") == Secret("a")
    assert hash(Secret("a", "${A}")) == hash(Secret("a"))
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert not Secret("")


CASES = [
    ("plain", {}, "plain", ""),
    ("${KEY}", {"KEY": "v"}, "v", "${KEY}"),
    ("pre-${A}-${B}", {"A": "1", "B": "2"}, "pre-1-2", "pre-${A}-${B}"),
    ("$${KEY}", {}, "${KEY}", "$${KEY}"),
    ("$KEY", {}, "$KEY", ""),
]


@pytest.mark.parametrize(("text", "env", "value", "reference"), CASES)
def test_references_to_variables(text: str, env: dict[str, str], value: str, reference: str) -> None:
    secret = resolve(text, Surroundings(env, HERE))
    assert secret.reveal() == value
    assert secret.reference == reference


def test_a_replaced_value_is_not_replaced_again() -> None:
    assert expand("${A}", {"A": "${B}", "B": "no"}) == "${B}"


FAULTS = [
    ("${KEY}", {}, "variable KEY is not set"),
    ("${KEY}", {"KEY": ""}, "set but empty"),
    ("${}", {}, "not the name"),
    ("${A B}", {}, "not the name"),
    ("", {}, "is empty"),
    ("file:missing", {}, "file missing cannot be read"),
    ("credential:key", {}, "LoadCredential=key"),
    ("credential:../key", {"CREDENTIALS_DIRECTORY": "/run"}, "plain file name"),
    ("credential:key", {"CREDENTIALS_DIRECTORY": "/nowhere"}, "credential key cannot be read"),
]


@pytest.mark.parametrize(("text", "env", "said"), FAULTS)
def test_what_leads_nowhere_is_named(text: str, env: dict[str, str], said: str) -> None:
    with pytest.raises(UnresolvedSecret, match=said):
        resolve(text, Surroundings(env, HERE))


def test_files_and_credentials_lose_their_last_line_end_only(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("va lue\r\n")
    at = Surroundings({"CREDENTIALS_DIRECTORY": str(tmp_path)}, tmp_path)
    assert resolve("file:key", at).reveal() == "va lue"
    assert resolve("credential:key", at).reveal() == "va lue"
    assert resolve(f"file:{tmp_path / 'key'}", Surroundings({}, HERE)).reveal() == "va lue"


@pytest.mark.parametrize(
    ("content", "said"), [(b"\n", "is empty"), (b"\xff", "not UTF-8"), (b"x" * (MAX_SECRET_BYTES + 1), "larger than")]
)
def test_files_that_hold_no_secret(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(UnresolvedSecret, match=said):
        resolve("file:key", Surroundings({}, tmp_path))


@pytest.mark.parametrize(
    ("text", "leads"), [("${A}", True), ("file:x", True), ("credential:x", True), ("gw-abc", False), ("$${A}", False)]
)
def test_what_may_be_shown_is_told_from_what_may_not(text: str, leads: bool) -> None:
    assert is_reference(text) is leads


@given(st.text())
def test_any_text_is_a_secret_or_a_sentence(text: str) -> None:
    with suppress(UnresolvedSecret):
        assert resolve(text, Surroundings({}, HERE)).reveal()
