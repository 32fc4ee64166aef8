"""The kinds of sink, in the order the docs list them; importing a module registers nothing.

The kinds a config may name stand in its schema, which lies below and cannot be asked from here; a test holds the two
together.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from gateway.config.schema import Export
from gateway.control.sinks.base import Sink
from gateway.control.sinks.file import FileSink
from gateway.control.sinks.stdout import StdoutSink


class Kind(NamedTuple):
    """A kind of sink, and how one is made from its part of the config; making opens nothing."""

    name: str
    make: Callable[[Export], Sink]


def _file(export: Export) -> Sink:
    return FileSink(Path(export.path), export.rotate_bytes)


def _stdout(_export: Export) -> Sink:
    return StdoutSink()


SINKS: Final[tuple[Kind, ...]] = (Kind("file", _file), Kind("stdout", _stdout))
_BY_NAME: Final = {kind.name: kind for kind in SINKS}


def sink_of(export: Export) -> Sink:
    """The sink an export writes to. Raises KeyError; the config's check has refused unknown kinds before."""
    return _BY_NAME[export.kind].make(export)
