"""Annotations become specs that say form, content and bounds."""

import datetime as dt
from typing import Annotated, Literal

import msgspec
import pytest

from gateway.config.schema import Config, Key, Network, Provider, Size
from gateway.config.secrets import Secret
from gateway.config.spec import Form, fields, settings, spec

FORMS: list[tuple[object, Form, str]] = [
    (str, "text", "text"),
    (int, "integer", "a whole number"),
    (float | None, "number", "a number"),
    (bool, "truth", "true or false"),
    (Secret | None, "secret", "a secret: text, `${ENV}`, `file:PATH` or `credential:NAME`"),
    (dt.datetime | None, "moment", "a moment"),
    (Network, "network", "a network"),
    (Literal["a", "b"], "choice", "one of a, b"),
    (tuple[str, ...], "list", "a list, as in `[a, b]`"),
    (dict[str, int], "dict", "a mapping, as in `{name: value}`"),
    (object, "free", "anything JSON has"),
    (Key, "struct", "a mapping"),
    (Size, "integer", "a size"),
]


@pytest.mark.parametrize(("hint", "form", "called"), FORMS)
def test_every_kind_of_annotation_the_schema_uses(hint: object, form: Form, called: str) -> None:
    found = spec(hint)
    assert (found.form, found.called) == (form, called)


def test_collections_say_what_is_inside() -> None:
    listed, named = spec(tuple[Network, ...]).item, spec(dict[str, Key]).item
    assert listed is not None
    assert listed.form == "network"
    assert named is not None
    assert named.struct is Key


def test_bounds_of_nested_annotations_add_up() -> None:
    inner = Annotated[int, msgspec.Meta(ge=1, extra={"mark": "size"})]
    found = spec(Annotated[inner, msgspec.Meta(le=9)])
    assert (found.ge, found.le, found.mark) == (1, 9, "size")


def test_fields_know_default_and_whether_they_are_required() -> None:
    assert fields(Key)["id"].required
    assert fields(Key)["models"].default == ("*",)
    assert fields(Provider)["headers"].default == {}


def test_settings_lists_every_path_below() -> None:
    paths = [path for path, _ in settings(Config)]
    assert len(paths) == len(set(paths))
    wanted = {"listen.tls.sni[].names", "providers.*.base_url", "models.*.targets[].provider", "routes[].match.path"}
    assert wanted < set(paths)
