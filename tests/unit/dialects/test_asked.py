"""What a request asks for, as a value."""

from gateway.dialects.asked import UNREAD, Asked


def test_an_empty_request_asks_for_one_answer_of_any_length() -> None:
    asked = Asked()
    assert (asked.n, asked.max_output, asked.text_bytes, asked.media) == (1, None, 0, ())
    assert asked.whole


def test_a_body_that_was_not_read_says_nothing_about_its_tokens() -> None:
    assert not UNREAD.whole
    assert UNREAD.max_output is None
