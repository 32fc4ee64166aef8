"""The reply's contract: who implements it offers all of it, and its head is plain data."""

import inspect

import pytest

from gateway.listener.respond import Responder
from gateway.relay.reply import AnswerHead, Reply
from tests.fakes.reply import FakeReply

WORDS = [name for name in vars(Reply) if not name.startswith("_") and inspect.isfunction(vars(Reply)[name])]


@pytest.mark.parametrize("kind", [Responder, FakeReply])
@pytest.mark.parametrize("word", WORDS)
def test_the_listener_and_the_tests_speak_it_alike(kind: type, word: str) -> None:
    own = inspect.signature(getattr(kind, word))
    assert list(own.parameters) == list(inspect.signature(getattr(Reply, word)).parameters)


def test_every_word_is_told_in_its_docstring() -> None:
    assert len(WORDS) >= 7
    assert all(getattr(Reply, word).__doc__ for word in WORDS)


def test_a_head_is_of_a_whole_answer_unless_it_says_otherwise() -> None:
    head = AnswerHead(200, b"", 0, "", (), (), 0)
    assert not head.sse
