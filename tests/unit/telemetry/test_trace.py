"""The rules of W3C Trace Context, one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.trace import MAX_STATE_BYTES, RANDOM_BYTES, Trace, continue_trace, passable_state

RANDOM = bytes(range(1, RANDOM_BYTES + 1))
OWN_TRACE, OWN_SPAN = RANDOM[:16].hex(), RANDOM[16:].hex()
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{SPAN}-01".encode()


def test_a_valid_trace_is_continued_under_a_span_of_our_own() -> None:
    trace = continue_trace(VALID, RANDOM)
    assert trace == Trace(TRACE, OWN_SPAN, SPAN, 1)
    assert trace.traceparent == f"00-{TRACE}-{OWN_SPAN}-01".encode()


def test_without_a_header_a_trace_is_started_unsampled() -> None:
    trace = continue_trace(b"", RANDOM)
    assert trace == Trace(OWN_TRACE, OWN_SPAN, "", 0)
    assert trace.traceparent == f"00-{OWN_TRACE}-{OWN_SPAN}-00".encode()


@pytest.mark.parametrize(
    "header",
    [
        f"ff-{TRACE}-{SPAN}-01",  # the one version that never will be
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01-more",  # version 00 has four fields
        f"00-{TRACE}-{SPAN}-01-",
        f"01-{TRACE}-{SPAN}-01.more",  # a later version goes on after a dash
        f"01-{TRACE}-{SPAN}-01more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN.upper()}-01",
        f"0A-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-0A",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}0-{SPAN}-01",
        f"00-{TRACE}-{SPAN[:-1]}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00_{TRACE}_{SPAN}_01",
        f"0-{TRACE}-{SPAN}-01",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01",  # two headers, joined
        "nonsense",
    ],
)
def test_an_invalid_header_is_as_good_as_none_and_takes_the_state_with_it(header: str) -> None:
    assert continue_trace(header.encode(), RANDOM, b"a=1") == continue_trace(b"", RANDOM)


@pytest.mark.parametrize("header", [f"01-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-what-the-future-brings"])
def test_a_later_version_is_read_as_far_as_it_is_known_and_sent_on_as_ours(header: str) -> None:
    assert continue_trace(header.encode(), RANDOM).traceparent == f"00-{TRACE}-{OWN_SPAN}-01".encode()


@pytest.mark.parametrize(("flags", "kept"), [("00", 0), ("01", 1), ("02", 2), ("03", 3), ("ff", 3), ("f8", 0)])
def test_unknown_flags_are_sent_as_zero(flags: str, kept: int) -> None:
    assert continue_trace(f"00-{TRACE}-{SPAN}-{flags}".encode(), RANDOM).flags == kept


def test_ids_are_never_all_zeros() -> None:
    trace = continue_trace(b"", bytes(RANDOM_BYTES))
    assert trace.traceparent == b"00-" + b"0" * 31 + b"1-" + b"0" * 15 + b"1-00"


@given(st.binary(max_size=80), st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES), st.binary(max_size=80))
def test_whatever_arrives_what_is_sent_is_valid(header: bytes, random: bytes, state: bytes) -> None:
    trace = continue_trace(header, random, state)
    again = continue_trace(trace.traceparent, RANDOM, trace.state)
    assert (again.trace_id, again.parent_id, again.state) == (trace.trace_id, trace.span_id, trace.state)


def test_header_lines() -> None:
    assert continue_trace(b"", RANDOM).header_lines == f"traceparent: 00-{OWN_TRACE}-{OWN_SPAN}-00\r\n".encode()
    lines = continue_trace(VALID, RANDOM, b"a=1").header_lines
    assert lines == f"traceparent: 00-{TRACE}-{OWN_SPAN}-01\r\ntracestate: a=1\r\n".encode()


@pytest.mark.parametrize(
    ("state", "passed"),
    [
        (b"a=1", b"a=1"),
        (b"a=1 , \tb=2", b"a=1,b=2"),
        (b"a=1,,b=2,", b"a=1,b=2"),  # empty members are allowed
        (b"tenant1@sys=x y", b"tenant1@sys=x y"),
        (b"1tenant@sys=x", b"1tenant@sys=x"),
        (b"a_-*/z=!~", b"a_-*/z=!~"),
        (b"k" + b"x" * 255 + b"=1", b"k" + b"x" * 255 + b"=1"),
        (b"", b""),
        (b",", b""),
        (b"a", b""),
        (b"a=", b""),
        (b"a =1", b""),
        (b"=1", b""),
        (b"1=1", b""),
        (b"A=1", b""),
        (b"a=b=c", b""),
        (b"a=\x7f", b""),
        (b"a=\xc3\xa9", b""),
        (b"a=1,b", b""),  # one bad member spoils it
        (b"a=1,a=2", b""),  # a key stands once
        (b"a@=1", b""),
        (b"@a=1", b""),
        (b"a@b@c=1", b""),
        (b"a@" + b"s" * 15 + b"=1", b""),
        (b"t" * 242 + b"@s=1", b""),
        (b"k" + b"x" * 256 + b"=1", b""),
        (b"a=" + b"v" * 257, b""),
    ],
)
def test_tracestate_is_passed_whole_or_not_at_all(state: bytes, passed: bytes) -> None:
    assert passable_state(state) == passed


def test_tracestate_has_at_most_32_members_and_512_bytes() -> None:
    members = [b"k%d=1" % number for number in range(33)]
    assert passable_state(b",".join(members[:32])) == b",".join(members[:32])
    assert passable_state(b",".join(members)) == b""
    long = [b"k%d=" % number + b"v" * 195 for number in range(3)]
    assert passable_state(b",".join(long)) == b",".join(long[:2])
    assert len(passable_state(b",".join(long))) <= MAX_STATE_BYTES
