"""Request bodies: JSON objects and multipart forms, read without trust and without ceremony.

A form is reduced to its plain fields and, for each file, its size; the bytes of a file interest nobody here.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

import orjson

from bench.sim.wire import Refused, Request

if TYPE_CHECKING:
    from collections.abc import Mapping

_BOUNDARY = re.compile(r'boundary=(?:"([^"]+)"|([^;\s]+))', re.IGNORECASE)
_NAME = re.compile(r'[;\s]name="([^"]*)"')
_FILENAME = re.compile(r"[;\s]filename\*?=")


class Form(NamedTuple):
    """A body's fields by name, and the sizes of the files in it."""

    fields: Mapping[str, object]
    files: Mapping[str, int]


def read(request: Request) -> Form:
    """The request's body as fields. Raises Refused (400, or 413 for one too long to have been kept)."""
    kind = request.header("content-type")
    if kind.lower().startswith("multipart/form-data"):
        return _multipart(request.body, kind)
    if not request.body_len:
        return Form({}, {})
    if len(request.body) < request.body_len:
        raise Refused(413, "Maximum content size limit exceeded.")
    return Form(_json(request.body), {})


def _json(body: bytes) -> Mapping[str, object]:
    try:
        value: object = orjson.loads(body)
    except ValueError:
        value = _lenient(body)
    if not isinstance(value, dict):
        raise Refused(400, "We could not parse the JSON body of your request: an object was expected.")
    return value


def _lenient(body: bytes) -> object:
    """The standard library takes what orjson will not (lone surrogates), as a provider may."""
    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "We could not parse the JSON body of your request.") from None
    return value


def _multipart(body: bytes, kind: str) -> Form:
    found = _BOUNDARY.search(kind)
    if found is None:
        raise Refused(400, "The multipart content-type has no boundary.")
    fields: dict[str, object] = {}
    files: dict[str, int] = {}
    for part in (b"\r\n" + body).split(b"\r\n--" + (found[1] or found[2]).encode())[1:]:
        header, blank, content = part.partition(b"\r\n\r\n")
        disposition = header.decode("utf-8", "replace")
        name = _NAME.search(disposition)
        if not blank or name is None:
            continue
        if _FILENAME.search(disposition):
            files[name[1].removesuffix("[]")] = len(content)
        else:
            fields[name[1]] = content.decode("utf-8", "replace")
    return Form(fields, files)
