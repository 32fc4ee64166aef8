"""The record's JSON is frozen: names, types and enum values are read years later, by programs we do not know.

GOLDEN is the one place that says what they are. A field may be added, with a default; none may change or go.
"""

import typing
from enum import Enum

import msgspec
import pytest

from gateway.record import (
    RECORD_VERSION,
    Attempt,
    Ending,
    Kind,
    Outcome,
    Personal,
    Record,
    Usage,
    UsageSource,
    begins_a_writer,
)

GOLDEN: dict[type[msgspec.Struct], dict[str, str]] = {
    Usage: {
        "input_tokens": "int",
        "output_tokens": "int",
        "cache_read_tokens": "int",
        "cache_write_tokens": "int",
        "reasoning_tokens": "int",
        "audio_input_tokens": "int",
        "audio_output_tokens": "int",
        "source": "UsageSource",
    },
    Attempt: {"target": "str", "cause": "str", "status": "int", "took_ms": "int", "upstream_request_id": "str"},
    Outcome: {
        "ending": "Ending",
        "status": "int",
        "attempts": "tuple[Attempt, ...]",
        "usage": "Usage | None",
        "error": "str",
        "streamed": "bool",
        "upstream_bytes": "int",
        "downstream_bytes": "int",
        "first_content_us": "int",
        "upstream_us": "int",
        "changed": "tuple[str, ...]",
        "unsent": "bool",
        "broken": "bool",
    },
    Personal: {"user": "str", "end_user": "str", "client_ip": "str", "user_agent": "str"},
    Record: {
        "kind": "Kind",
        "exchange_id": "str",
        "at_us": "int",
        "v": "int",
        "session_id": "str",
        "parent_action": "str",
        "trace_id": "str",
        "span_id": "str",
        "org": "str",
        "team": "str",
        "agent": "str",
        "key_id": "str",
        "role": "str",
        "personal": "Personal | None",
        "sealed": "str",
        "sealed_by": "str",
        "surface": "str",
        "route": "str",
        "model": "str",
        "target": "str",
        "streamed": "bool",
        "decision": "str",
        "policy_version": "str",
        "findings": "dict[str, int]",
        "data_class": "str",
        "limits_verdict": "str",
        "hold_id": "str",
        "hold_amounts": "dict[str, int]",
        "status": "int",
        "ending": "str",
        "error": "str",
        "attempts": "tuple[Attempt, ...]",
        "usage": "Usage | None",
        "cost_microusd": "int",
        "changed": "tuple[str, ...]",
        "dropped": "tuple[str, ...]",
        "duration_us": "int",
        "overhead_us": "int",
        "first_content_us": "int",
        "request_bytes": "int",
        "answer_bytes": "int",
        "prompt_digest": "str",
        "answer_digest": "str",
        "node": "str",
        "region": "str",
        "chain": "str",
        "generation": "int",
        "action": "str",
        "subject": "str",
        "detail": "str",
        "actor": "str",
        "count": "int",
        "segment": "int",
        "prev": "str",
        "signature": "str",
        "signed_by": "str",
        "settled_amounts": "dict[str, int]",
        "entry": "str",
    },
}
VALUES: dict[type[Enum], set[str]] = {
    Kind: {"decision", "outcome", "admin", "mode", "checkpoint"},
    Ending: {"complete", "refused", "failed", "truncated", "abandoned"},
    UsageSource: {"provider", "metered", "estimated"},
}
REQUIRED = {Record: {"kind", "exchange_id", "at_us"}, Outcome: {"ending", "status"}, Attempt: {"target", "cause"}}


def shown(hint: object) -> str:
    return (
        hint.__name__
        if isinstance(hint, type) and not typing.get_args(hint)
        else str(hint).replace("gateway.record.", "")
    )


@pytest.mark.parametrize("struct", list(GOLDEN))
def test_names_types_and_order_are_frozen(struct: type[msgspec.Struct]) -> None:
    hints = typing.get_type_hints(struct)
    found = {field.encode_name: shown(hints[field.name]) for field in msgspec.structs.fields(struct)}
    assert list(found.items()) == list(GOLDEN[struct].items())


@pytest.mark.parametrize("struct", list(GOLDEN))
def test_new_fields_need_a_default_so_that_old_records_still_read(struct: type[msgspec.Struct]) -> None:
    required = {field.name for field in msgspec.structs.fields(struct) if field.required}
    assert required == REQUIRED.get(struct, set())


@pytest.mark.parametrize("kind", list(VALUES))
def test_values_are_frozen(kind: type[Enum]) -> None:
    assert {member.value for member in kind} == VALUES[kind]


FULL = Record(
    kind=Kind.OUTCOME,
    exchange_id="x1",
    at_us=1_800_000_000_000_000,
    org="acme",
    personal=Personal(user="ann"),
    attempts=(Attempt("p/m", "ok", 200, 12, "up-1"), Attempt("q/m", "upstream_timeout")),
    usage=Usage(5, 7, source=UsageSource.METERED),
    findings={"email": 2},
    changed=("model",),
    generation=3,
)
WRITTEN = (
    b'{"kind":"outcome","exchange_id":"x1","at_us":1800000000000000,"org":"acme","personal":{"user":"ann"},'
    b'"findings":{"email":2},"attempts":[{"target":"p/m","cause":"ok","status":200,"took_ms":12,'
    b'"upstream_request_id":"up-1"},{"target":"q/m","cause":"upstream_timeout"}],"usage":{"input_tokens":5,'
    b'"output_tokens":7,"source":"metered"},"changed":["model"],"generation":3}'
)


def test_one_record_as_it_is_written() -> None:
    assert msgspec.json.encode(FULL) == WRITTEN
    assert msgspec.json.decode(WRITTEN, type=Record) == FULL


def test_the_oldest_line_still_reads() -> None:
    oldest = b'{"kind":"decision","exchange_id":"x","at_us":1}'
    assert msgspec.json.decode(oldest, type=Record) == Record(Kind.DECISION, "x", 1)
    assert msgspec.json.encode(Record(Kind.DECISION, "x", 1)) == oldest


def test_a_line_of_a_later_build_still_reads() -> None:
    later = WRITTEN[:-1] + b',"not_yet_known":{"a":1}}'
    assert msgspec.json.decode(later, type=Record) == FULL


def test_a_line_without_a_version_is_of_version_one() -> None:
    """Version 1 is not written out, so the default of `v` can never be another number."""
    assert RECORD_VERSION == 1
    assert b'"v"' not in WRITTEN
    assert msgspec.json.decode(WRITTEN, type=Record).v == 1


def test_amounts_are_integers() -> None:
    for fields in GOLDEN.values():
        assert not [name for name, hint in fields.items() if "float" in hint]


def test_personal_fields_stand_in_the_sealed_part_alone() -> None:
    assert not GOLDEN[Personal].keys() & GOLDEN[Record].keys()


@pytest.mark.parametrize(
    ("detail", "begins"),
    [
        ('{"opened_by":"start"}', True),
        ('{"opened_by":"repair"}', True),
        ('{"opened_by":"idle"}', True),
        ('{"opened_by":"size","pid":4}', False),
        ('{"opened_by":"time"}', False),
        ("", True),
        ("not JSON", True),
        ('{"x":' + "[" * 50_000, True),
    ],
)
def test_who_writes_a_chain_is_told_by_its_segments(detail: str, *, begins: bool) -> None:
    assert begins_a_writer(Record(Kind.CHECKPOINT, "", 1, action="segment", detail=detail)) is begins


@pytest.mark.parametrize(
    ("kind", "action", "begins"),
    [
        (Kind.CHECKPOINT, "began", True),
        (Kind.CHECKPOINT, "repaired", False),
        (Kind.CHECKPOINT, "", False),
        (Kind.OUTCOME, "began", False),
        (Kind.ADMIN, "segment", False),
    ],
)
def test_only_these_checkpoints_say_who_writes(kind: Kind, action: str, begins: bool) -> None:
    assert begins_a_writer(Record(kind, "", 1, action=action)) is begins
