"""Which objects kept at a provider a request names: file ids, containers, earlier responses and the like.

Provider accounts are shared by tenants, so such a name could reach another tenant's object. `named` walks a member's
JSON and returns the paths of every reference, wherever the published APIs put one. Keys are compared case-folded and
every one of two equal keys counts, because we cannot know which of them a provider reads.

Not walked are the places where callers' own JSON stands (tool schemas, tool inputs, metadata): a property called
`file_id` there names nothing. An item's own `id` in `input` is not a reference either: agents send whole earlier
outputs back. Cost: only members that are not plain text messages come here (see each dialect's request.py).
"""

import json
from typing import Any, Final

_OPAQUE: Final = frozenset(
    {"parameters", "schema", "input_schema", "json_schema", "arguments", "metadata", "logit_bias", "headers"}
)
_IDS: Final = frozenset(
    {
        "file_id",
        "file_ids",
        "vector_store_id",
        "vector_store_ids",
        "container_id",
        "previous_response_id",
        "conversation_id",
        "skill_id",
        "tunnel_id",
        "user_profile_id",
    }
)
_OBJECTS: Final = frozenset({"container", "conversation", "voice", "audio"})  # a reference where they hold an `id`
_BARE: Final = frozenset({"container", "conversation"})  # and where they are a string themselves
_PUBLIC_SKILL: Final = "anthropic"  # a skill of the vendor's own, the same for every account

_Pairs = tuple[tuple[str, Any], ...]  # an object, with equal keys kept apart; arrays are lists

_load: Final = json.JSONDecoder(object_pairs_hook=tuple, parse_int=len, parse_float=len).decode


def named(value: bytes, path: str) -> tuple[str, ...]:
    """Paths of the references inside a valid JSON value standing at `path`: ("messages.content.file.file_id",).

    Indexes are left out, and every path is named once. Raises nothing.
    """
    found: dict[str, None] = {}
    _visit(path.rpartition(".")[2], _load(value.decode()), path, found)
    return tuple(found)


def _visit(key: str, node: object, path: str, found: dict[str, None]) -> None:
    if isinstance(node, list):
        for item in node:
            _visit(key, item, path, found)
    elif isinstance(node, tuple):
        _visit_object(key, node, path, found)
    elif isinstance(node, str) and node and (key in _IDS or key in _BARE):
        found[path] = None


def _visit_object(key: str, pairs: _Pairs, path: str, found: dict[str, None]) -> None:
    types = [value for name, value in pairs if name == "type" and isinstance(value, str)]
    if "item_reference" in types or (key == "input" and _only_an_id(pairs)):
        found[f"{path}.id"] = None
    for name, value in pairs:
        folded = name.casefold()
        below = f"{path}.{folded}"
        if folded in _OPAQUE or (folded == "input" and any(kind.endswith("tool_use") for kind in types)):
            continue
        if folded == "skill_id" and types == [_PUBLIC_SKILL]:
            continue
        if folded == "id" and key in _OBJECTS:
            if isinstance(value, str) and value:
                found[below] = None
            continue
        _visit(folded, value, below, found)


def _only_an_id(pairs: _Pairs) -> bool:
    names = {name for name, value in pairs if value is not None}
    return "id" in names and names <= {"id", "type"}
