"""W3C Trace Context: continue the caller's trace towards the provider, or start one.

Models the two headers of the recommendation (level 1, with level 2's random flag): `traceparent`, version, trace id,
parent id and flags in lower-case hex, and `tracestate`, opaque to us and passed on whole.

Invariants: a header that is not valid to the letter is as good as none, and then `tracestate` is dropped too; ids are
never all zeros; what we send is version 00, and flags we do not know are 0. Pure: the caller brings the random bytes.
Left out: exporting spans; the ids go into the record.

Source: https://www.w3.org/TR/trace-context/, sections 3.2 and 3.3.
"""

import re
from typing import Final

import msgspec

RANDOM_BYTES: Final = 24  # 16 for a trace id, 8 for a span id
MAX_STATE_BYTES: Final = 512  # what the recommendation asks to be passed on at least
MAX_STATE_MEMBERS: Final = 32
_KNOWN_FLAGS: Final = 0x03  # sampled; random trace id
_TRACE_BYTES: Final = 16
_SPAN_BYTES: Final = 8
_NO_TRACE: Final = b"0" * 32
_NO_SPAN: Final = b"0" * 16
_PARENT: Final = re.compile(
    rb"(?!ff)(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?",
    re.DOTALL,
)
_KEY: Final = rb"(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
_VALUE: Final = rb"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_TRACE_DIGITS: Final = 2 * _TRACE_BYTES
_NO_TRACE_HEX: Final = "0" * _TRACE_DIGITS
_NO_SPAN_HEX: Final = "0" * 2 * _SPAN_BYTES
_MEMBER: Final = re.compile(rb"(" + _KEY + rb")=" + _VALUE)


class Trace(msgspec.Struct, frozen=True, gc=False):
    """Where this exchange stands in a trace. `span_id` is ours; `parent_id` is the caller's, "" when we started."""

    trace_id: str
    span_id: str
    parent_id: str = ""
    flags: int = 0
    state: bytes = b""

    @property
    def traceparent(self) -> bytes:
        """The header's value for the provider."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}".encode()

    @property
    def header_lines(self) -> bytes:
        """Both headers as they stand in a request head, each with its CRLF."""
        lines = b"traceparent: " + self.traceparent + b"\r\n"
        return lines + b"tracestate: " + self.state + b"\r\n" if self.state else lines


def fresh_trace(random: bytes) -> tuple[str, str, bytes]:
    """A new trace from RANDOM_BYTES fresh bytes: trace id, span id, and the header line for the provider.

    What nearly every request takes, so it makes no Trace.
    """
    hexed = random.hex()
    trace_id, span_id = hexed[:_TRACE_DIGITS], hexed[_TRACE_DIGITS:]
    if trace_id == _NO_TRACE_HEX or span_id == _NO_SPAN_HEX:
        trace = continue_trace(b"", random)
        return trace.trace_id, trace.span_id, trace.header_lines
    return trace_id, span_id, f"traceparent: 00-{trace_id}-{span_id}-00\r\n".encode()


def continue_trace(traceparent: bytes, random: bytes, tracestate: bytes = b"") -> Trace:
    """The trace of an exchange whose caller sent these headers (b"" for none); raises nothing.

    `random` is RANDOM_BYTES fresh bytes. Several `tracestate` headers are handed in joined by commas, in order;
    several `traceparent` headers are invalid, so joined they are refused here.
    """
    span_id = _id(random[_TRACE_BYTES:RANDOM_BYTES], _SPAN_BYTES)
    found = _PARENT.fullmatch(traceparent) if traceparent else None
    if found is None:
        return Trace(_id(random[:_TRACE_BYTES], _TRACE_BYTES), span_id)
    version, trace, parent, flags, more = found.groups()
    if trace == _NO_TRACE or parent == _NO_SPAN or (more is not None and version == b"00"):
        return Trace(_id(random[:_TRACE_BYTES], _TRACE_BYTES), span_id)
    state = passable_state(tracestate) if tracestate else b""
    return Trace(trace.decode(), span_id, parent.decode(), int(flags, 16) & _KNOWN_FLAGS, state)


def passable_state(tracestate: bytes) -> bytes:
    """The `tracestate` to pass on: normalised, b"" when it is not valid; whole members are cut from its end if long."""
    members = [member for part in tracestate.split(b",") if (member := part.strip(b" \t"))]
    matches = [_MEMBER.fullmatch(member) for member in members]
    keys = {match[1] for match in matches if match is not None}
    if len(members) > MAX_STATE_MEMBERS or len(keys) != len(members):  # also when a member did not match
        return b""
    state = b",".join(members)
    while len(state) > MAX_STATE_BYTES:
        state = state.rpartition(b",")[0]
    return state


def _id(random: bytes, size: int) -> str:
    """Hex of the bytes; the one value that means nothing becomes another."""
    return random.hex() if any(random) else f"{1:0{2 * size}x}"
