"""docs/journal.md has a row for every field of a record, in order, and names every kind and ending."""

import re
from pathlib import Path

from msgspec.structs import fields

from gateway.journal import layout
from gateway.record import Attempt, Ending, Kind, Personal, Record, Usage, UsageSource

PAGE = (Path(__file__).parents[3] / "docs" / "journal.md").read_text()
TABLE = PAGE.split("## Records", 1)[1].split("### What an exchange leaves", 1)[0]
ROWS = dict(re.findall(r"^\| `(\w+)` \| (.*)$", TABLE, flags=re.MULTILINE))


def test_every_field_has_its_row_in_the_records_order() -> None:
    assert list(ROWS) == [field.encode_name for field in fields(Record)]


def test_every_inner_field_and_value_is_named() -> None:
    for struct, row in ((Attempt, "attempts"), (Usage, "usage"), (Personal, "sealed")):
        for field in fields(struct):
            assert f"`{field.encode_name}`" in ROWS[row]
    for kind, row in ((Kind, "kind"), (Ending, "ending"), (UsageSource, "usage")):
        for member in kind:
            assert f"`{member.value}`" in ROWS[row]


def test_names_on_the_disk_are_as_they_are() -> None:
    journal = Path("journal")
    for path in (layout.segment_path(journal, "w0", 1), layout.segment_path(journal, layout.CONTROL, 1)):
        assert str(path) in PAGE
    assert f"journal/{layout.MANIFESTS}/0000000001.jsonl" in PAGE
