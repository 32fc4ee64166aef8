"""The vocabulary of dialects: flags are single bits, facts start out empty."""

from gateway.dialects.base import RequestFacts, Seen


def test_flags_are_single_bits() -> None:
    flags = [flag.value for flag in Seen]
    assert len(set(flags)) == len(flags)
    assert all(flag & (flag - 1) == 0 for flag in flags)


def test_facts_start_out_empty() -> None:
    facts = RequestFacts("m")
    assert (facts.stream, facts.stored, facts.names, facts.stream_options) == (False, (), frozenset(), None)
