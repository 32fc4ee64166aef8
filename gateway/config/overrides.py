"""`--set listen.port=9000`: single settings given on the command line, laid over the file's tree.

A path is names and list positions: `models."gpt-4.1".targets[0].weight`. Names with dots, brackets or blanks are
quoted; a position one past the end appends. The value is read as YAML (`[a, b]`, `{x: 1}`, `null`), and as plain
text where it is not YAML, so that a secret starting with `@` needs no quoting.

Invariant: the file's tree is never changed, since aliases share nodes; the way down to the new value is copied.
"""

import re
from collections.abc import Sequence as Given
from typing import Final

from gateway.config.problems import COMMAND_LINE, Path, Place, Problem, dotted, printable
from gateway.config.tree import Mapping, Node, Scalar, Sequence, parse

_INDEX: Final = re.compile(r"\d{1,6}")
_STEP: Final = re.compile(r'(?:^|(?<=.)\.)(?:"((?:[^"\\]|\\.)*)"|([^.\[\]"=\s]+))|\[(\d{1,6})\]')
_PLACE: Final = Place(COMMAND_LINE)


def apply(root: Node, given: Given[str]) -> tuple[Node, list[Problem]]:
    """The tree with every override laid over it, in order, and the overrides that could not be."""
    problems: list[Problem] = []
    for text in given:
        try:
            path, value = split(text)
            root = _laid(root, path, value, ())
        except Misplaced as error:
            problems.append(Problem(_PLACE, error.path, error.message))
    return root, problems


class Misplaced(Exception):
    """An override that is not `path=value`, or whose path leads nowhere."""

    def __init__(self, message: str, path: Path = ()) -> None:
        super().__init__(message)
        self.message = message
        self.path = path


def split(text: str) -> tuple[Path, Node]:
    """Path and value of one override. Raises Misplaced with how it is written."""
    path: list[str | int] = []
    at = 0
    while at < len(text) and text[at] != "=":
        step = _STEP.match(text, at)
        if step is None:
            break
        quoted, bare, index = step.groups()
        path.append(int(index) if index is not None else bare if bare is not None else re.sub(r"\\(.)", r"\1", quoted))
        at = step.end()
    if not path or at >= len(text) or text[at] != "=":
        name = printable(text.partition("=")[0])
        raise Misplaced(f"`{name}` is not `path=value`: write --set listen.port=9000, or --set 'models.\"a.b\".…=…'")
    return tuple(path), _value(text[at + 1 :])


def _value(text: str) -> Node:
    node, problems = parse(text, COMMAND_LINE, lambda _line, _column: _PLACE)
    if problems:
        return Scalar(_PLACE, text, plain=False)
    return Scalar(_PLACE, "") if node is None else node


def _laid(node: Node | None, path: Path, value: Node, above: Path) -> Node:
    if not path:
        return value
    step, below = path[0], path[1:]
    here = (*above, step)
    if isinstance(node, Sequence):
        return _in_list(node, step, below, value, above)
    if isinstance(step, int):
        raise Misplaced(f"`{dotted(above)}` is not a list, so it has no [{step}]", here)
    if node is None or (isinstance(node, Scalar) and node.null):
        return Mapping(_PLACE, {step: _laid(None, below, value, here)}, {step: _PLACE})
    if isinstance(node, Scalar):
        raise Misplaced(f"`{dotted(above)}` is a single value and has nothing named `{step}` below it", here)
    entries = {**node.entries, step: _laid(node.entries.get(step), below, value, here)}
    return Mapping(node.place, entries, {step: _PLACE, **node.names})


def _in_list(node: Sequence, step: str | int, below: Path, value: Node, above: Path) -> Node:
    if isinstance(step, str):
        if not _INDEX.fullmatch(step):
            raise Misplaced(f"`{dotted(above)}` is a list: say which, as in `{dotted(above)}[0]`", (*above, step))
        step = int(step)
    if step > len(node.items):
        raise Misplaced(f"`{dotted(above)}` has {len(node.items)} items, so [{step}] does not exist", (*above, step))
    current = node.items[step] if step < len(node.items) else None
    items = [*node.items[:step], _laid(current, below, value, (*above, step)), *node.items[step + 1 :]]
    return Sequence(node.place, items)
