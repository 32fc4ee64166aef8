"""What the schema wants of a value, compiled once from its annotations.

The walk and the readers ask a Spec, never `typing`: what form a value has (struct, list, mapping, free JSON, or a
kind of scalar), what stands inside it, and its bounds. Built on first use and cached, since a schema never changes.
"""

import datetime as dt
import functools
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Final, Literal, NamedTuple

import msgspec

from gateway.config.schema import Network
from gateway.config.secrets import Secret

Form = Literal[
    "struct", "list", "dict", "free", "text", "integer", "number", "truth", "choice", "moment", "network", "secret"
]
_SCALARS: Final[dict[object, Form]] = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "truth",
    dt.datetime: "moment",
    Network: "network",
    Secret: "secret",
    object: "free",
}
_CALLED: Final[dict[Form, str]] = {
    "struct": "a mapping",
    "list": "a list, as in `[a, b]`",
    "dict": "a mapping, as in `{name: value}`",
    "free": "anything JSON has",
    "text": "text",
    "integer": "a whole number",
    "number": "a number",
    "truth": "true or false",
    "moment": "a moment",
    "network": "a network",
    "secret": "a secret: text, `${ENV}`, `file:PATH` or `credential:NAME`",
}


class Spec(NamedTuple):
    """One type of the schema. `mark` is `size`, `path` or `one_or_many` where the schema asks for it."""

    form: Form
    struct: type[msgspec.Struct] = msgspec.Struct
    item: "Spec | None" = None
    choices: tuple[str, ...] = ()
    mark: str = ""
    ge: float | None = None
    le: float | None = None
    min_length: int = 0
    max_length: int | None = None

    @property
    def called(self) -> str:
        """The type in an operator's words: `must be …`."""
        if self.form == "choice":
            return f"one of {', '.join(self.choices)}"
        return {"size": "a size", "path": "a path"}.get(self.mark) or _CALLED[self.form]


class Field(NamedTuple):
    """One setting: a field of a struct."""

    name: str
    spec: Spec
    required: bool
    default: object


@functools.cache
def fields(struct: type[msgspec.Struct]) -> dict[str, Field]:
    """The settings of a struct by name, in the order of the schema."""
    hints = typing.get_type_hints(struct, include_extras=True)
    return {
        field.name: Field(field.name, spec(hints[field.name]), field.required, _default(field))
        for field in msgspec.structs.fields(struct)
    }


def spec(hint: object) -> Spec:
    """The Spec of an annotation; `| None` says that a setting may be absent and adds nothing to its form."""
    origin = typing.get_origin(hint)
    if origin is Annotated:
        inner, *extra = typing.get_args(hint)
        return _bounded(spec(inner), extra)
    if hint != Network and origin in (types.UnionType, typing.Union):
        (inner,) = (part for part in typing.get_args(hint) if part is not types.NoneType)
        return spec(inner)
    if origin is Literal:
        return Spec("choice", choices=typing.get_args(hint))
    if origin in (tuple, dict):
        first, second = typing.get_args(hint)  # tuple[item, ...], dict[str, item]
        return Spec("list", item=spec(first)) if origin is tuple else Spec("dict", item=spec(second))
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return Spec("struct", struct=hint)
    return Spec(_SCALARS[hint])


def settings(struct: type[msgspec.Struct], above: str = "") -> Iterator[tuple[str, Field]]:
    """Every setting below a struct, depth first, as the docs list them: `providers.*.base_url`, `keys[].id`."""
    for field in fields(struct).values():
        path = f"{above}{field.name}"
        yield path, field
        inner, step = field.spec, "."
        if inner.item is not None:
            inner, step = inner.item, "[]." if inner.form == "list" else ".*."
        if inner.form == "struct":
            yield from settings(inner.struct, path + step)


def _bounded(found: Spec, extra: list[object]) -> Spec:
    for meta in extra:
        if isinstance(meta, msgspec.Meta):
            found = found._replace(
                mark=(meta.extra or {}).get("mark", found.mark),
                ge=found.ge if meta.ge is None else meta.ge,
                le=found.le if meta.le is None else meta.le,
                min_length=meta.min_length or found.min_length,
                max_length=meta.max_length or found.max_length,
            )
    return found


def _default(field: msgspec.structs.FieldInfo) -> object:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()  # an empty dict, and nobody changes a config
    return field.default
