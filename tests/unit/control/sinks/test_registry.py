"""The kinds a config may name are the sinks there are."""

from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from gateway.config.schema import Export
from gateway.control.sinks.file import FileSink
from gateway.control.sinks.registry import SINKS, sink_of
from gateway.control.sinks.stdout import StdoutSink
from tests.unit.control.sinks.scenes import export


def test_config_and_registry_know_the_same_kinds() -> None:
    assert [kind.name for kind in SINKS] == list(get_args(get_type_hints(Export)["kind"]))


@pytest.mark.parametrize(("kind", "made"), [("file", FileSink), ("stdout", StdoutSink)])
def test_a_kind_makes_its_sink(kind: str, made: type, tmp_path: Path) -> None:
    assert isinstance(sink_of(export(kind, tmp_path / "out")), made)


def test_a_file_gets_its_settings(tmp_path: Path) -> None:
    sink = sink_of(Export(name="all", kind="file", path=str(tmp_path / "out"), rotate_bytes=10))
    for line in (b'{"n":1}', b'{"n":2}'):
        sink.send([line])
    sink.close()
    assert len(list(tmp_path.glob("out*"))) == 2
