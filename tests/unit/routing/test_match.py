"""The first route that matches wins, and what it does not say comes from the model, the defaults, what is built in."""

from gateway.config.schema import BUILT_IN, Config, Journal, Match, Model, Route, RouteSettings, Target, Timeouts
from gateway.routing.match import DEFAULT_ROUTE, Router
from gateway.units import NS_PER_S

ROUTES = (
    Route(name="agents", match=Match(path="/v1/responses", labels={"app": "agent"}), timeouts=Timeouts(total_s=3600)),
    Route(name="big", match=Match(model="gpt-4*"), max_attempts=1, hold_s=0),
    Route(name="raw", match=Match(path="/passthrough/*")),
)
ROUTER = Router(Config(routes=ROUTES, defaults=RouteSettings(timeouts=Timeouts(idle_s=7), max_attempts=2)))


def _wins(path: str, model: str, **labels: str) -> str:
    return ROUTER.match(path, model, labels).name


def test_the_first_match_wins() -> None:
    assert _wins("/v1/responses", "gpt-4o", app="agent", other="x") == "agents"
    assert _wins("/v1/responses", "gpt-4o", app="other") == "big"
    assert _wins("/v1/responses", "gpt-4o") == "big"
    assert _wins("/v1/chat/completions", "gpt-3.5") == DEFAULT_ROUTE
    assert _wins("/passthrough/openai/files", "") == "raw"
    assert _wins("/v1/responsesx", "o3", app="agent") == DEFAULT_ROUTE


def test_without_routes_everything_takes_the_default_one() -> None:
    assert Router(Config()).match("/x", "y", {}).name == DEFAULT_ROUTE


def test_a_route_s_class_of_data_wins_over_the_key_s() -> None:
    route, other = Router(Config(routes=(Route(name="files", match=Match(path="/f"), data_class="secret"),))).routes
    assert (route.data_class("public"), route.data_class("")) == ("secret", "secret")
    assert (other.data_class("public"), other.data_class("")) == ("public", "")


def test_what_a_route_does_not_say_is_inherited_in_order() -> None:
    model = Model(targets=(Target(provider="p", model="m"),), timeouts=Timeouts(total_s=99, first_byte_s=5, idle_s=8))
    agents = ROUTER.routes[0].terms("gpt", model)
    assert agents.total_ns == 3600 * NS_PER_S  # the route's
    assert agents.first_byte_ns == 5 * NS_PER_S  # the model's
    assert agents.idle_ns == 8 * NS_PER_S  # the model's, over the defaults'
    assert agents.max_attempts == 2  # the defaults'
    assert BUILT_IN.timeouts is not None
    assert agents.connect_ns == int((BUILT_IN.timeouts.connect_s or 0) * NS_PER_S)
    big = ROUTER.routes[1].terms("", None)
    assert (big.max_attempts, big.hold_ns, big.idle_ns) == (1, 0, 7 * NS_PER_S)


def test_terms_are_remembered_per_entry() -> None:
    route = ROUTER.routes[-1]
    fast = Model(targets=(Target(provider="p", model="m"),), timeouts=Timeouts(total_s=1))
    assert route.terms("fast", fast).total_ns == NS_PER_S
    assert route.terms("", None).total_ns != NS_PER_S
    assert route.terms("fast", fast) is route.terms("fast", fast)


def test_what_must_be_on_the_disk_and_what_may_go_unrecorded() -> None:
    routes = (Route(name="careful", match=Match(path="/a"), durability="synced"), Route(name="rest"))
    router = Router(Config(routes=routes, journal=Journal(on_failure="open")))
    careful, rest = (route.terms("", None) for route in router.routes[:2])
    assert (careful.synced, careful.unrecorded) == (True, True)
    assert (rest.synced, rest.unrecorded) == (False, True)
    usual = Router(Config()).routes[0].terms("", None)
    assert (usual.synced, usual.unrecorded) == (False, False)
