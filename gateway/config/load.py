"""From a file to a Config, or to every reason why not.

Four steps, each in its module: text to tree (`tree`), `--set` over it (`overrides`), tree to values (`walk`), and
what must hold between values (`crosscheck`). A `Document` is the tree that passed, with its references unresolved:
what a snapshot keeps, and from which each process makes its own Config with `realise`.
"""

import os
from collections.abc import Mapping as Names
from collections.abc import Sequence as Given
from pathlib import Path as FilePath
from typing import Final, NamedTuple

import msgspec

from gateway.config import overrides
from gateway.config.crosscheck import crosscheck
from gateway.config.problems import ConfigProblems, Place, Problem
from gateway.config.schema import Config
from gateway.config.tree import Mapping, Node, Scalar, Sequence, find, parse
from gateway.config.walk import walk

MAX_FILE_BYTES: Final = 64 * 1024 * 1024
_KEYS: Final = "keys"


class Document(msgspec.Struct, frozen=True, array_like=True):
    """A checked config as written, without its keys, and the directory its relative paths start from."""

    tree: Node
    directory: str


class Loaded(NamedTuple):
    """A config twice: as values for this process, and as the document that others make theirs from."""

    config: Config
    document: Document


def load(path: str | os.PathLike[str], given: Given[str] = (), env: Names[str, str] | None = None) -> Config:
    """The config of a file with `--set` values over it. Raises ConfigProblems with everything there is to put right."""
    return read(path, given, env).config


def read(path: str | os.PathLike[str], given: Given[str] = (), env: Names[str, str] | None = None) -> Loaded:
    """As `load`, with the document for a snapshot beside the values."""
    file = FilePath(path)
    return read_text(_text_of(file), str(path), _directory(file), given, env)


def read_text(
    text: str, source: str, directory: FilePath, given: Given[str] = (), env: Names[str, str] | None = None
) -> Loaded:
    """As `read`, for text that is already here; `source` names it in problems."""
    tree, problems = _tree(text, source, given)
    env = os.environ if env is None else env
    walked = walk(tree, env, directory)
    problems += walked.problems
    problems += crosscheck(walked, tree, Place(source), env)
    if problems or walked.config is None:
        raise ConfigProblems(problems)
    return Loaded(walked.config, Document(_without_keys(tree), str(directory)))


class Skimmed(NamedTuple):
    """What can be known of a config that may not pass: where its state is, and the key ids it writes down."""

    state_dir: str
    key_ids: tuple[str, ...]


def skim(path: str | os.PathLike[str], given: Given[str] = (), env: Names[str, str] | None = None) -> Skimmed:
    """Read only as much as must be readable. Raises ConfigProblems when it is no file, no YAML or no mapping."""
    file = FilePath(path)
    tree, problems = _tree(_text_of(file), str(path), given)
    walked = walk(tree, os.environ if env is None else env, _directory(file))
    in_the_way = [*problems, *(problem for problem in walked.problems if problem.path[:1] in ((), ("state_dir",)))]
    if in_the_way or walked.config is None:
        raise ConfigProblems(in_the_way)
    ids = [find(key, ("id",)) for key in _items(find(tree, (_KEYS,)))]
    return Skimmed(walked.config.state_dir, tuple(node.text for node in ids if isinstance(node, Scalar)))


def realise(document: Document, env: Names[str, str] | None = None) -> Config:
    """This process's Config of a checked document: secrets resolved anew. Raises ConfigProblems if one has gone."""
    walked = walk(document.tree, os.environ if env is None else env, FilePath(document.directory))
    if walked.problems or walked.config is None:
        raise ConfigProblems(walked.problems)
    return walked.config


def _tree(text: str, source: str, given: Given[str]) -> tuple[Node, list[Problem]]:
    """The tree with `--set` over it. What is no YAML is raised at once: anything said about its values is a guess."""
    tree, problems = parse(text, source)
    if problems:
        raise ConfigProblems(problems)
    if tree is None:
        raise ConfigProblems([Problem(Place(source), (), "is empty: `gateway init` writes a config to start from")])
    laid, problems = overrides.apply(tree, given)
    return laid, problems


def _directory(file: FilePath) -> FilePath:
    return FilePath(os.path.abspath(file)).parent  # noqa: PTH100 - as typed: `resolve` would follow a link elsewhere


def _items(node: Node | None) -> list[Node]:
    return node.items if isinstance(node, Sequence) else []


def _text_of(file: FilePath) -> str:
    whole = Place(str(file))
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        message = f"cannot be read: {error.strerror or error}; `gateway init` writes a config to start from"
        raise ConfigProblems([Problem(whole, (), message)]) from error
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigProblems([Problem(whole, (), f"is larger than {MAX_FILE_BYTES} bytes")])
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - (raw.rfind(b"\n", 0, error.start) + 1) + 1
        raise ConfigProblems([Problem(Place(str(file), line, column), (), "is not UTF-8 text")]) from error


def _without_keys(tree: Node) -> Node:
    if not isinstance(tree, Mapping):
        return tree
    entries = {name: node for name, node in tree.entries.items() if name != _KEYS}
    return Mapping(tree.place, entries, {name: tree.names[name] for name in entries})
