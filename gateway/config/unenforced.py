"""Settings that have a name and no effect yet: known, so that they can be refused instead of ignored.

A limit that is written and silently not applied costs money; a misspelling gets another answer than a feature that
is still to come. A row leaves this table in the commit that enforces its setting.
"""

from typing import Final

from gateway.config import schema

WHY: Final = "is not enforced by this version: remove it"

SETTINGS: Final[dict[type, frozenset[str]]] = {
    schema.Config: frozenset({"policy", "inspection", "cache"}),
    schema.Route: frozenset({"detectors", "policy", "limits", "cache", "hedging"}),
    schema.RouteSettings: frozenset({"detectors", "policy", "limits", "cache", "hedging"}),
}
"""By struct: settings that later versions enforce."""

VALUES: Final = frozenset({(schema.Route, "relay", "filter"), (schema.RouteSettings, "relay", "filter")})
"""Values of a setting that later versions enforce."""
