"""Which limit on requests in flight bounds what a bucket can owe: one that counts all its requests together."""

import pytest

from gateway.config.limits import Rule, RuleMatch
from gateway.limiter.debt import in_flight
from tests.fakes.limits import START_MS, limits_of


def bound(of: Rule, *slots: Rule) -> int | None:
    """The bound of the first rule's bucket by the others."""
    rules = (of, *slots)
    lines = limits_of(*rules).lines(START_MS, "eve", "big").lines
    (line,) = [line for line in lines if line.rule == of.name]
    return in_flight(line, lines, {rule.name: rule.match for rule in rules})


def tokens(*per: str, **match: str) -> Rule:
    return Rule(name="tokens", per=per, tokens=10, every="minute", match=RuleMatch(**match))  # type: ignore[arg-type]


def slots(*per: str, name: str = "slots", number: int = 3, shadow: bool = False, **match: str) -> Rule:
    return Rule(name=name, per=per, in_flight=number, shadow=shadow, match=RuleMatch(**match))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("of", "by"),
    [
        (tokens("key"), slots("key")),
        (tokens("key"), slots("org")),
        (tokens("key"), slots("team", "label:app")),
        (tokens("key"), slots()),
        (tokens("team"), slots("org")),
        (tokens("user"), slots("org")),
        (tokens("key"), slots("role")),
        (tokens("role", "model"), slots("role")),
        (tokens("data_class"), slots("data_class")),
        (tokens("key"), slots(role="analyst")),
        (tokens("org", data_class="internal"), slots("org", data_class="internal")),
        (tokens("key", "model"), slots("model")),
        (tokens("key", "end_user"), slots("key")),
        (tokens("label:app"), slots("label:app")),
        (tokens("provider"), slots("provider")),
        (tokens("key"), slots("key", org="acme")),
        (tokens("org", model="gpt-*"), slots("org", model="gpt-*")),
    ],
)
def test_it_bounds_what_it_counts_together(of: Rule, by: Rule) -> None:
    assert bound(of, by) == 3


@pytest.mark.parametrize(
    ("of", "by"),
    [
        (tokens("org"), slots("key")),  # of how many keys?
        (tokens("org"), slots("team")),
        (tokens("team"), slots("user")),
        (tokens("user"), slots("team")),
        (tokens("user"), slots("role")),  # of which key?
        (tokens("role"), slots("org")),  # a role is anybody's
        (tokens("key"), slots("data_class")),  # on which route?
        (tokens("key"), slots("key", data_class="internal")),
        (tokens("key"), slots("key", "model")),
        (tokens("key"), slots("key", "end_user")),
        (tokens("key"), slots("provider")),
        (tokens("model"), slots("route")),
        (tokens("org"), slots("label:app")),
        (tokens("key"), slots("key", model="gpt-*")),  # other models are not in flight there
        (tokens("model"), slots("model", model="gpt-1")),  # an entry answers to many names
        (tokens("org"), slots("org", team="search")),
        (tokens("key"), slots("key", shadow=True)),
        (tokens("key"), tokens("key", model="gpt-1")),
    ],
)
def test_it_does_not_bound_what_others_do(of: Rule, by: Rule) -> None:
    named = Rule(**{name: getattr(by, name) for name in by.__struct_fields__} | {"name": "other"})
    assert bound(of, named) is None


def test_labels_that_both_want_are_the_same() -> None:
    app = RuleMatch(label={"app": "ui"})
    wants = Rule(name="slots", per=("org",), in_flight=3, match=app)
    of_app = Rule(name="tokens", per=("org",), tokens=10, every="minute", match=app)
    assert bound(of_app, wants) == 3
    assert bound(tokens("label:app", "org"), wants) == 3
    assert bound(tokens("org"), wants) is None


def test_the_least_of_several_counts() -> None:
    assert bound(tokens("key"), slots("key"), slots("org", name="fewer", number=2), slots(name="more", number=9)) == 2
    assert bound(tokens("key")) is None
