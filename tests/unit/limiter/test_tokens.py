"""Tokenizers: loaded when named, and when they cannot be, what to do."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from gateway.limiter import tokens
from gateway.limiter.tokens import PACKAGE, Tokenizer, TokenizerUnusable


class Words:
    """A tokenizer of words, with the package's way of speaking."""

    @staticmethod
    def encode(text: str, *, add_special_tokens: bool = True) -> SimpleNamespace:
        return SimpleNamespace(ids=[0] * add_special_tokens + list(range(len(text.split()))))

    @classmethod
    def from_file(cls, path: str) -> "Words":
        if not Path(path).is_file():
            raise Exception("No such file or directory (os error 2)")  # noqa: TRY002 - as the package does
        return cls()


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package, as far as it is used."""
    module = ModuleType(PACKAGE)
    module.__dict__["Tokenizer"] = Words
    monkeypatch.setitem(sys.modules, PACKAGE, module)


@pytest.mark.usefixtures("package")
def test_texts_are_counted_without_special_tokens(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text("{}")
    assert tokens.load(str(file)).count(["one two", "", "three"]) == 3


def test_nothing_to_count() -> None:
    assert Tokenizer(Words()).count([]) == 0


@pytest.mark.usefixtures("package")
def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(TokenizerUnusable, match=r"tokenizer /no/where\.json: cannot be read: No such file .*; give"):
        tokens.load("/no/where.json")


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    with pytest.raises(
        TokenizerUnusable, match=r"t\.json: the package tokenizers is not installed: pip install '.*\[limits\]'"
    ):
        tokens.load("t.json")
