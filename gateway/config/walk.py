"""From nodes to typed values: the schema's types read a tree, and every mismatch is reported, not only the first.

The wanted type decides how a scalar is read, never the scalar's looks: `org: 007` is the text 007, `user: no` is the
text no, `min_version: 1.2` is the version. `${NAME}` is replaced in every value; `file:` and `credential:` lead on
where the schema wants a Secret. `null`, or nothing after the colon, is the same as not saying it.

Invariants: a value that could not be read is reported where it stands and takes its default, so that what depends on
it can still be checked; a struct that lacks a required part is left out. `Walked.built` has every struct that was
read with its path, because positions in the values no longer tell positions in the file.
"""

import os
from collections.abc import Iterable
from collections.abc import Mapping as Names
from pathlib import Path as FilePath
from typing import Final, TypeVar

import msgspec

from gateway.config import unenforced
from gateway.config.problems import COMMAND_LINE, Path, Place, Problem, did_you_mean, printable
from gateway.config.scalars import looks_like, read_scalar
from gateway.config.schema import Config
from gateway.config.secrets import Surroundings, UnresolvedSecret, expand, is_reference, resolve
from gateway.config.spec import Field, Spec, fields, spec
from gateway.config.tree import Mapping, Node, Scalar, Sequence, name_place

Built = TypeVar("Built", bound=msgspec.Struct)


class Walked(msgspec.Struct):
    """A tree as values: `config` is None when a required part is missing at the top."""

    config: Config | None
    built: list[tuple[Path, msgspec.Struct]]
    problems: list[Problem]

    def of(self, kind: type[Built]) -> list[tuple[Path, Built]]:
        """Every struct of that type that could be read, with its path."""
        return [(path, value) for path, value in self.built if type(value) is kind]


def walk(root: Node, env: Names[str, str], directory: FilePath) -> Walked:
    """Read a whole config. Relative paths start at `directory`, those given by `--set` at the working directory."""
    walker = _Walker(env, directory)
    value = walker.read(root, spec(Config), ())
    config = value if isinstance(value, Config) else None
    return Walked(config, walker.built, walker.problems)


class _Invalid:
    """Marks a value that was reported and has no replacement."""


_INVALID: Final = _Invalid()


class _Walker:
    """One pass over one tree."""

    def __init__(self, env: Names[str, str], directory: FilePath) -> None:
        self.env = env
        self.directory = directory
        self.built: list[tuple[Path, msgspec.Struct]] = []
        self.problems: list[Problem] = []
        self._readers = {
            "struct": self._struct,
            "list": self._list,
            "dict": self._dict,
            "free": self._free,
            "secret": self._secret,
        }

    def report(self, place: Place, path: Path, message: str, shown: str = "") -> _Invalid:
        self.problems.append(Problem(place, path, message, shown))
        return _INVALID

    def read(self, node: Node, spec: Spec, path: Path) -> object:
        """The node as a value of that type, or _INVALID after reporting why not."""
        return self._readers.get(spec.form, self._scalar)(node, spec, path)

    def _struct(self, node: Node, spec: Spec, path: Path) -> object:
        kind = spec.struct
        if isinstance(node, Scalar) and node.null:
            node = Mapping(node.place, {}, {})
        if not isinstance(node, Mapping):
            return self.report(node.place, path, f"must be a mapping with {_listed(fields(kind))}, not {_kind(node)}")
        self._unknown(node, kind, path)
        values: dict[str, object] = {}
        whole = True
        for field in fields(kind).values():
            value = self._field(node, kind, field, path)
            whole = whole and value is not _INVALID
            values[field.name] = value
        if not whole:
            return _INVALID
        built = kind(**values)
        self.built.append((path, built))
        return built

    def _field(self, node: Mapping, kind: type, field: Field, path: Path) -> object:
        given = node.entries.get(field.name)
        here = (*path, field.name)
        if given is None or (isinstance(given, Scalar) and given.null):
            if not field.required:
                return self._default(field)
            place = node.place if given is None else given.place
            return self.report(place, path, f"`{field.name}` is missing: every {_noun(kind)} needs one")
        if isinstance(given, Scalar) and (kind, field.name, given.text) in unenforced.VALUES:
            value: object = self.report(given.place, here, unenforced.WHY, given.text)
        else:
            value = self.read(given, field.spec, here)
        return value if value is not _INVALID or field.required else self._default(field)

    def _default(self, field: Field) -> object:
        if field.spec.mark == "path" and isinstance(field.default, str):
            return _absolute(field.default, self.directory)
        return field.default

    def _unknown(self, node: Mapping, kind: type[msgspec.Struct], path: Path) -> None:
        known = fields(kind)
        for name in node.entries:
            if name in known:
                continue
            here, place = (*path, name), name_place(node, name)
            if name in unenforced.SETTINGS.get(kind, ()):
                self.report(place, here, unenforced.WHY)
            else:
                hint = did_you_mean(name, known) or f"; known here: {_listed(known)}"
                self.report(place, here, f"is not a setting{hint}")

    def _list(self, node: Node, spec: Spec, path: Path) -> object:
        if isinstance(node, Scalar) and spec.mark == "one_or_many":
            node = Sequence(node.place, [node])
        if not isinstance(node, Sequence):
            return self._misshaped(node, spec, path)
        if len(node.items) < spec.min_length:
            return self.report(node.place, path, "is empty: give at least one")
        values = [self._item(child, spec, (*path, index)) for index, child in enumerate(node.items)]
        return tuple(value for value in values if value is not _INVALID)

    def _dict(self, node: Node, spec: Spec, path: Path) -> object:
        if not isinstance(node, Mapping):
            return self._misshaped(node, spec, path)
        values = {name: self._item(child, spec, (*path, name)) for name, child in node.entries.items()}
        return {name: value for name, value in values.items() if value is not _INVALID}

    def _item(self, node: Node, spec: Spec, path: Path) -> object:
        if spec.item is None or (isinstance(node, Scalar) and node.null and spec.item.form != "free"):
            return self.report(node.place, path, "is empty: give it a value or remove it")
        return self.read(node, spec.item, path)

    def _misshaped(self, node: Node, spec: Spec, path: Path) -> _Invalid:
        return self.report(node.place, path, f"must be {spec.called}, not {_kind(node)}")

    def _expanded(self, node: Scalar, path: Path) -> str | _Invalid:
        try:
            return expand(node.text, self.env)
        except UnresolvedSecret as error:
            return self.report(node.place, path, str(error))

    def _secret(self, node: Node, spec: Spec, path: Path) -> object:
        if not isinstance(node, Scalar):
            return self._misshaped(node, spec, path)
        try:
            secret = resolve(node.text, Surroundings(self.env, self._start(node)))
        except UnresolvedSecret as error:
            return self.report(node.place, path, str(error), printable(node.text) if is_reference(node.text) else "")
        if not secret.reveal().isprintable() or not secret.reveal().isascii() or " " in secret.reveal():
            return self.report(node.place, path, "has blanks or characters that no HTTP header can carry")
        return secret

    def _scalar(self, node: Node, spec: Spec, path: Path) -> object:
        if not isinstance(node, Scalar):
            return self._misshaped(node, spec, path)
        text = self._expanded(node, path)
        if isinstance(text, _Invalid):
            return text
        try:
            value = read_scalar(text, spec)
        except ValueError as error:
            return self.report(node.place, path, str(error), _shown(node, path))
        return _absolute(text, self._start(node)) if spec.mark == "path" else value

    def _free(self, node: Node, spec: Spec, path: Path) -> object:
        """JSON as the operator wrote it: here, and only here, a scalar's looks decide."""
        if isinstance(node, Sequence):
            return [self._free(child, spec, (*path, index)) for index, child in enumerate(node.items)]
        if isinstance(node, Mapping):
            return {name: self._free(child, spec, (*path, name)) for name, child in node.entries.items()}
        if node.null:
            return None
        text = self._expanded(node, path)
        if isinstance(text, _Invalid):
            return text
        return looks_like(text) if node.plain else text

    def _start(self, node: Scalar) -> FilePath:
        """Where relative paths start: a shell's words mean the shell's directory."""
        return FilePath.cwd() if node.place.source == COMMAND_LINE else self.directory


def _absolute(text: str, start: FilePath) -> str:
    """Absolute without following links: a certificate that is renewed by moving a link must be found again."""
    return os.path.abspath(start / FilePath(text).expanduser()) if text else ""  # noqa: PTH100


def _shown(node: Scalar, path: Path) -> str:
    """The value as written, unless it may carry a secret: any header's value, a URL with a password."""
    return "" if "headers" in path or "@" in node.text else printable(node.text)


def _kind(node: Node) -> str:
    if isinstance(node, Scalar):
        return "nothing" if node.null else "a single value"
    return "a list" if isinstance(node, Sequence) else "a mapping"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _noun(kind: type) -> str:
    return "".join(f" {c.lower()}" if c.isupper() else c for c in kind.__name__).strip()
