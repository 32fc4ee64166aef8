"""Config text as a tree of nodes that know where they were written.

Reads YAML from its events instead of its values, for three reasons: every node keeps line and column, a key given
twice is seen, and a scalar keeps its spelling, so that the schema decides what `no`, `1.2` or `0755` means and not a
guess by the parser. The tree is also what a snapshot stores: secret references stand in it unresolved.

Invariants: building uses no recursion, so depth is a number we check and not a crash; an alias shares its node, and
the tree's size as a reader would expand it is bounded, so a few lines cannot become gigabytes. Merge keys (`<<`)
work as usual: what is said in place wins. Left out, and reported: tags, several documents, keys that are not scalars.
"""

from collections.abc import Callable
from typing import Final, Protocol

import msgspec
import yaml

from gateway.config.problems import Path, Place, Problem, printable

MAX_DEPTH: Final = 64
MAX_NODES: Final = 4_000_000
_MERGE: Final = "<<"
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's reads ten times faster, where it was built
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})


class Scalar(msgspec.Struct, frozen=True, array_like=True, tag="s"):
    """A single value as it was spelled; `plain` means without quotes, so it may be a number, a truth or nothing."""

    place: Place
    text: str
    plain: bool = True

    @property
    def null(self) -> bool:
        """Nothing was said: an empty value, `~` or `null`."""
        return self.plain and self.text in _NULLS


class Sequence(msgspec.Struct, frozen=True, array_like=True, tag="q"):
    """A list."""

    place: Place
    items: list["Node"]


class Mapping(msgspec.Struct, frozen=True, array_like=True, tag="m"):
    """Names and what they stand for; `names` has the place of each name."""

    place: Place
    entries: dict[str, "Node"]
    names: dict[str, Place]


Node = Scalar | Sequence | Mapping


def parse(
    text: str, source: str, locate: Callable[[int, int], Place] | None = None
) -> tuple[Node | None, list[Problem]]:
    """The tree of a YAML document, None when there is no content, and what was wrong on the way."""
    builder = _Builder(locate or (lambda line, column: Place(source, line, column)))
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
            if builder.stopped:
                break
    except yaml.MarkedYAMLError as error:
        builder.report(_at(error.problem_mark or error.context_mark, builder.locate), (), _sentence(error))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        builder.report(builder.locate(0, 0), (), f"cannot be read as YAML: {_first_line(error)}")
    return builder.root, builder.problems


def find(node: Node | None, path: Path) -> Node | None:
    """The node at a path, or None."""
    for step in path:
        node = _child(node, step)
    return node


def place_of(node: Node | None, path: Path, default: Place) -> Place:
    """Where the setting at a path is written; when it is not, where the nearest thing around it is."""
    place = default if node is None else node.place
    for step in path:
        node = _child(node, step)
        if node is None:
            return place
        place = node.place
    return place


def name_place(node: Mapping, name: str) -> Place:
    """Where a mapping's name is written."""
    return node.names.get(name, node.place)


def _child(node: Node | None, step: str | int) -> Node | None:
    if isinstance(node, Mapping) and isinstance(step, str):
        return node.entries.get(step)
    if isinstance(node, Sequence) and isinstance(step, int) and step < len(node.items):
        return node.items[step]
    return None


class _Mark(Protocol):
    """A position as the parser counts: from 0."""

    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...


class _Open:
    """A collection whose end has not been read yet."""

    def __init__(self, node: Sequence | Mapping, anchor: str | None) -> None:
        self.node = node
        self.anchor = anchor
        self.name: str | None = None  # of the entry being read, in a mapping
        self.name_place = node.place
        self.merged: list[Mapping] = []
        self.size = 1

    @property
    def step(self) -> str | int:
        """Where in the collection the reader is."""
        return len(self.node.items) if isinstance(self.node, Sequence) else (self.name or "")


class _Builder:
    """Events in, tree and problems out."""

    def __init__(self, locate: Callable[[int, int], Place]) -> None:
        self.locate = locate
        self.root: Node | None = None
        self.problems: list[Problem] = []
        self.stopped = False
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._documents = 0

    def report(self, place: Place, path: Path, message: str) -> None:
        self.problems.append(Problem(place, path, message))

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._begin(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._end()
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._stop(self._place(event), "a second document starts here: keep one, without further `---`")

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        self._refuse_tag(event)
        plain = event.style is None or event.style == ""
        node = Scalar(self._place(event), event.value, plain)
        if event.anchor:
            self._anchors[event.anchor] = (node, 1)
        self._put(node, 1)

    def _alias(self, event: yaml.AliasEvent) -> None:
        known = self._anchors.get(event.anchor or "")
        if known is not None:
            self._put(*known)
            return
        name = printable(event.anchor or "")
        inside = any(frame.anchor == event.anchor for frame in self._open)
        why = "stands inside of what it repeats" if inside else f"needs an anchor `&{name}` above it"
        self.report(self._place(event), self._path(), f"`*{name}` {why}")
        self._put(Scalar(self._place(event), ""), 1)

    def _begin(self, event: yaml.CollectionStartEvent) -> None:
        self._refuse_tag(event)
        if len(self._open) >= MAX_DEPTH:
            self._stop(self._place(event), f"nested deeper than {MAX_DEPTH} levels")
            return
        mapping = isinstance(event, yaml.MappingStartEvent)
        place = self._place(event)
        self._open.append(_Open(Mapping(place, {}, {}) if mapping else Sequence(place, []), event.anchor))

    def _end(self) -> None:
        frame = self._open.pop()
        if isinstance(frame.node, Mapping):
            _merge(frame.node, frame.merged)
        if frame.anchor:
            self._anchors[frame.anchor] = (frame.node, frame.size)
        self._put(frame.node, frame.size)

    def _put(self, node: Node, size: int) -> None:
        if not self._open:
            self.root = node
            return
        frame = self._open[-1]
        frame.size += size
        if frame.size > MAX_NODES:
            self._stop(node.place, f"expands to more than {MAX_NODES} values: too many aliases")
        elif isinstance(frame.node, Sequence):
            frame.node.items.append(node)
        elif frame.name is None:
            self._name(frame, node)
        else:
            self._entry(frame, frame.node, frame.name, node)

    def _name(self, frame: _Open, node: Node) -> None:
        frame.name_place = node.place
        if isinstance(node, Scalar):
            frame.name = node.text
            return
        self.report(node.place, self._path(), "a name must be plain text, not a list or a mapping")
        frame.name = ""

    def _entry(self, frame: _Open, mapping: Mapping, name: str, node: Node) -> None:
        if name == _MERGE:
            self._merge_from(frame, node)
        elif name in mapping.entries:
            first = mapping.names[name]
            self.report(frame.name_place, self._path(), f"is given twice, first at {first}: keep one of them")
        else:
            mapping.entries[name] = node
            mapping.names[name] = frame.name_place
        frame.name = None

    def _merge_from(self, frame: _Open, node: Node) -> None:
        for source in node.items if isinstance(node, Sequence) else [node]:
            if isinstance(source, Mapping):
                frame.merged.append(source)
            else:
                self.report(source.place, self._path(), "`<<` takes a mapping, or a list of mappings")

    def _refuse_tag(self, event: yaml.NodeEvent) -> None:
        tag = getattr(event, "tag", None)
        if tag not in (None, "!"):
            self.report(self._place(event), self._path(), f"the tag `{printable(tag)}` has no meaning here: remove it")

    def _stop(self, place: Place, message: str) -> None:
        self.report(place, self._path(), message)
        self.stopped = True

    def _path(self) -> Path:
        return tuple(frame.step for frame in self._open if frame.step != "")

    def _place(self, event: yaml.Event) -> Place:
        return _at(event.start_mark, self.locate)


def _merge(into: Mapping, sources: list[Mapping]) -> None:
    for source in sources:
        for name, node in source.entries.items():
            if name not in into.entries:
                into.entries[name] = node
                into.names[name] = source.names[name]


def _at(mark: _Mark | None, locate: Callable[[int, int], Place]) -> Place:
    return locate(0, 0) if mark is None else locate(mark.line + 1, mark.column + 1)


def _sentence(error: yaml.MarkedYAMLError) -> str:
    said = ", ".join(part for part in (error.context, error.problem) if part)
    return f"is not YAML: {said or 'it cannot be read'}; check indentation, quotes and the `:` after names"


def _first_line(error: Exception) -> str:
    return printable(str(error).partition("\n")[0])
