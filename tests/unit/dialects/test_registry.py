"""Every surface has its dialect, and every dialect answers for itself."""

import pytest

from gateway.dialects.registry import DIALECTS, find
from gateway.dialects.surfaces import SURFACES


def test_every_surface_has_a_dialect() -> None:
    assert {surface.dialect for surface in SURFACES} == {dialect.name for dialect in DIALECTS}


def test_find() -> None:
    for dialect in DIALECTS:
        assert find(dialect.name) is dialect
    with pytest.raises(KeyError):
        find("morse")


def test_every_surface_gets_a_fresh_reader() -> None:
    for surface in SURFACES:
        dialect = find(surface.dialect)
        first, second = dialect.stream_reader(surface), dialect.stream_reader(surface)
        assert first is not second
        assert first.read(b": comment\n\n") == 0
        assert (first.usage, first.error, first.text_bytes) == (None, b"", 0)
