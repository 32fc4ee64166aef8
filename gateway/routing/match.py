"""Routes: named settings, and the requests they are for. The first route that matches wins.

Compiled once from the config; matching walks the list in its written order, so `gateway check` can show the very
order that decides. What a route does not say comes from the model's timeouts, then `defaults`, then what is built in.

Invariant: every request matches, because the list ends in the implicit route `default`, which matches anything.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gateway.config.schema import BUILT_IN, Config, Model, RouteSettings, Timeouts
from gateway.config.schema import Match as Pattern
from gateway.config.schema import Route as RouteConfig
from gateway.units import NS_PER_S

DEFAULT_ROUTE: Final = "default"


class Terms(msgspec.Struct, frozen=True, gc=False):
    """What a route grants one exchange: every wait with its limit, in nanoseconds, and how often to try."""

    connect_ns: int
    first_byte_ns: int
    first_content_ns: int
    idle_ns: int
    total_ns: int
    hold_ns: int
    comment_ns: int
    max_attempts: int
    synced: bool  # a decision counts as recorded once the disk has it
    unrecorded: bool  # while the journal cannot be written, serve all the same


class Route:
    """A route, compiled: `terms(entry)` joins it with a model's own timeouts."""

    def __init__(
        self, name: str, pattern: Pattern, settings: RouteSettings, defaults: RouteSettings, data_class: str = ""
    ) -> None:
        self.name = name
        self.pattern = pattern
        self.own_data_class = data_class
        self._settings = settings
        self._defaults = defaults
        self._terms: dict[str, Terms] = {}

    def matches(self, path: str, model: str, labels: Mapping[str, str]) -> bool:
        """Whether a request takes this route."""
        wanted = self.pattern
        return (
            _fits(wanted.path, path)
            and _fits(wanted.model, model)
            and all(labels.get(name) == value for name, value in wanted.labels.items())
        )

    def data_class(self, declared: str) -> str:
        """The class of the data of a request on this route, "" for none; `declared`: the one its key has.

        The route's own wins: it knows what is asked of whom, where a key stands for all that its holder sends.
        """
        return self.own_data_class or declared

    def terms(self, pattern: str, model: Model | None) -> Terms:
        """The limits for a model entry, remembered under its `pattern` (one per entry of the config)."""
        known = self._terms.get(pattern)
        if known is None:
            known = self._terms[pattern] = self._compile(model)
        return known

    def _compile(self, model: Model | None) -> Terms:
        timeouts = Timeouts()
        for source in (self._settings.timeouts, model.timeouts if model else None, self._defaults.timeouts):
            timeouts = timeouts.over(source)
        timeouts = timeouts.over(BUILT_IN.timeouts)
        return Terms(
            connect_ns=_ns(timeouts.connect_s),
            first_byte_ns=_ns(timeouts.first_byte_s),
            first_content_ns=_ns(timeouts.first_content_s),
            idle_ns=_ns(timeouts.idle_s),
            total_ns=_ns(timeouts.total_s),
            hold_ns=_ns(self._said("hold_s")),
            comment_ns=_ns(self._said("keepalive_comment_s")),
            max_attempts=int(self._said("max_attempts")),
            synced=self._said("durability") == "synced",
            unrecorded=self._said("on_failure") == "open",
        )

    def _said(self, setting: str) -> Any:  # noqa: ANN401 - as the schema types it
        for source in (self._settings, self._defaults, BUILT_IN):
            value = getattr(source, setting)
            if value is not None:
                return value
        raise AssertionError(setting)  # BUILT_IN leaves nothing unsaid


class Router:
    """All routes of a config, in order."""

    def __init__(self, config: Config) -> None:
        defaults = config.route_defaults
        named = [_compiled(route, defaults) for route in config.routes]
        self.routes = (*named, Route(DEFAULT_ROUTE, Pattern(), RouteSettings(), defaults))
        self._only = self.routes[0] if len(self.routes) == 1 else None

    def match(self, path: str, model: str, labels: Mapping[str, str]) -> Route:
        """The route of a request; `path` is the caller's, `model` the name it asked for."""
        if self._only is not None:
            return self._only
        for route in self.routes:
            if route.matches(path, model, labels):
                return route
        raise AssertionError(path)  # the implicit last route matches anything


def _compiled(route: RouteConfig, defaults: RouteSettings) -> Route:
    return Route(route.name, route.match, route, defaults, route.data_class)


def _fits(pattern: str, text: str) -> bool:
    if not pattern:
        return True
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern


def _ns(seconds: float | None) -> int:
    return int((seconds or 0) * NS_PER_S)
