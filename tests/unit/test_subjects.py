"""What limits are told of a request: all that its key says, and the route, whose class of data wins."""

from gateway.config.limits import Allowance
from gateway.config.schema import Config, Route
from gateway.identity.identify import Principal
from gateway.limiter.rules import Subject
from gateway.routing.match import Router
from gateway.subjects import subject_of

ANN = Principal(
    "k", "acme", "search", "ann", "analyst", {"app": "ui"}, "internal", models=("a*",), allowance=Allowance(rpm=5)
)
PLAIN, SECRET = (Router(Config(routes=(Route(name="r", data_class=name),))).routes[0] for name in ("", "secret"))


def test_all_that_a_key_says_is_told_and_the_route() -> None:
    assert subject_of(ANN, PLAIN, "gpt-1", "gpt-*") == Subject(
        key="k",
        org="acme",
        team="search",
        user="ann",
        role="analyst",
        labels={"app": "ui"},
        model="gpt-1",
        entry="gpt-*",
        route="r",
        data_class="internal",
        allowance=Allowance(rpm=5),
    )


def test_a_route_s_class_of_data_wins() -> None:
    assert subject_of(ANN, SECRET).data_class == subject_of(Principal("k"), SECRET).data_class == "secret"


def test_who_says_nothing_is_told_as_nothing() -> None:
    assert subject_of(Principal("k"), PLAIN) == Subject("k", route="r")
