"""Every way in which limits can contradict themselves, and the limits that do not."""

import msgspec
import pytest

from gateway.config.limitcheck import MAX_AT_ONCE, at_most, check_limits, check_room, check_rule
from gateway.config.limits import Allowance, Limits, Rule, RuleMatch
from gateway.config.secrets import Secret
from gateway.limiter.engine import MAX_CHARGES

SOUND = [
    Rule(name="team-tpm", per=("team", "model"), tokens=1, every="minute", capacity=5, shadow=True),
    Rule(
        name="org-budget", per=("org",), usd=1000, every="month", budget=True, alerts=(70, 90), time_zone="Asia/Tokyo"
    ),
    Rule(name="vip", per=("key", "label:app"), requests=10, every="second", match=RuleMatch(org="a", model="gpt-*")),
    Rule(name="open", in_flight=5),
    Rule(name="users", per=("end_user", "key"), input_tokens=5, every="day"),
    Rule(name="slow-money", usd=1, every="second", budget=False, capacity=0.5),
]

UNSOUND = [
    ({"name": "no good"}, "name: is not a rule's name"),
    ({"name": "key.rpm"}, "name: is the name of a short form's rule"),
    ({"tokens": None}, "r: limits nothing"),
    ({"requests": 5}, "r: names requests and tokens"),
    ({"every": None}, "every: is missing"),
    ({"time_zone": "UTC"}, "time_zone: is of no use to a rate"),
    ({"capacity": 0.5}, "capacity: must be at least 1"),
    ({"tokens": None, "usd": 1, "budget": False, "capacity": 2e6}, "capacity: must be at most 1000000 USD"),
    ({"budget": True}, "every: must be hour, day, week, month"),
    ({"budget": True, "every": "day", "capacity": 5}, "capacity: is of no use to a budget"),
    ({"budget": True, "every": "day", "time_zone": "Mars/Base"}, "time_zone: is not a time zone"),
    ({"budget": True, "every": "day", "time_zone": "/etc/passwd"}, "time_zone: is not a time zone"),
    ({"tokens": None, "in_flight": 5}, "every: has no meaning for `in_flight`"),
    ({"tokens": None, "in_flight": 5, "every": None, "capacity": 5}, "capacity: has no meaning"),
    ({"tokens": None, "in_flight": 5, "every": None, "budget": False}, "budget: has no meaning"),
    ({"per": ("roles",)}, '0: is not a scope; did you mean "role"?'),
    ({"per": ("taem",)}, '0: is not a scope; did you mean "team"?'),
    ({"per": ("label:",)}, "0: is not a scope: use org"),
    ({"per": ("key", "key")}, "1: is given twice"),
    ({"per": ("end_user", "model")}, "per: has `end_user` without key, team or org"),
    ({"match": RuleMatch(model="a*b")}, "model: may have one `*`"),
    ({"match": RuleMatch(role="a*b")}, "role: may have one `*`"),
    ({"match": RuleMatch(data_class="a*b")}, "data_class: may have one `*`"),
]


def said(found: list[tuple[tuple[str | int, ...], str, str]]) -> list[str]:
    return [f"{path[-1]}: {message}" for path, message, _ in found]


@pytest.mark.parametrize("rule", SOUND, ids=lambda rule: rule.name)
def test_a_sound_rule_passes(rule: Rule) -> None:
    assert list(check_rule(("r",), rule)) == []


@pytest.mark.parametrize(("changes", "message"), UNSOUND)
def test_an_unsound_rule_is_told_why(changes: dict[str, object], message: str) -> None:
    rule = msgspec.structs.replace(Rule(name="r", tokens=5, every="minute"), **changes)
    (fault,) = said(list(check_rule(("r",), rule)))
    assert fault.startswith(message)


STORES = [
    "embedded",
    "redis://h",
    "redis://h:6379/0",
    "rediss://u:p@h:1/15",
    "redis://[::1]:6379",
    "redis://a,b:7000",
    "sentinel://a,b:26379/main",
]
NO_STORES = [
    "redis:/h",
    "http://h",
    "redis://h:0",
    "redis://h:x",
    "redis://h/main",
    "redis://h/0?a=b",
    "redis://[h",
    "sentinel://a,b",
    "",
]


@pytest.mark.parametrize("url", STORES)
def test_a_store_that_can_be_dialled(url: str) -> None:
    assert list(check_limits(("limits",), Limits(store=Secret(url)))) == []


@pytest.mark.parametrize("url", NO_STORES)
def test_a_store_that_cannot_is_not_shown(url: str) -> None:
    ((path, message, shown),) = check_limits(("limits",), Limits(store=Secret(url)))
    assert (path, shown) == (("limits", "store"), "")
    assert "redis://host:6379/0" in message


def test_files_for_tls_want_a_store_with_tls() -> None:
    plain = Limits(store=Secret("redis://h"), ca_file="/ca", client_cert="/c", client_key="/k")
    assert len(list(check_limits((), plain))) == 3
    for url in ("rediss://h", "sentinels://h/main"):
        assert list(check_limits((), msgspec.structs.replace(plain, store=Secret(url)))) == []
    (fault,) = said(list(check_limits((), Limits(store=Secret("rediss://h"), client_key="/k"))))
    assert fault == "client_key: needs `client_cert` beside it"


def test_names_of_rules_are_unique() -> None:
    rule = Rule(name="r", in_flight=1)
    ((path, message, _),) = check_limits(("limits",), Limits(rules=(rule, rule)))
    assert path == ("limits", "rules", 1, "name")
    assert "rule 0" in message


def test_domain_and_time_zone_are_looked_at() -> None:
    faults = said(list(check_limits((), Limits(domain="a_b", time_zone="Nowhere"))))
    assert [fault.partition(":")[0] for fault in faults] == ["domain", "time_zone"]


# --- room -----------------------------------------------------------------------------------------------------------


def matching(**match: str) -> Rule:
    return Rule(name="r", in_flight=1, match=RuleMatch(**match))  # type: ignore[arg-type]


def test_one_step_takes_from_as_many_buckets_as_the_engines_say() -> None:
    assert MAX_AT_ONCE == MAX_CHARGES


def test_rules_for_different_values_exclude_each_other() -> None:
    assert at_most(()) == 0
    assert at_most([matching()] * 3) == 3
    assert at_most([matching(org="a"), matching(org="a"), matching(org="b"), matching()]) == 3
    assert at_most([matching(model=f"m{n}") for n in range(50)]) == 1
    assert at_most([matching(model=f"m{n}*") for n in range(50)]) == 50  # one may begin as another does
    assert at_most([matching(role="a"), matching(role="b")]) == 1
    assert at_most([matching(data_class="a"), matching(data_class="b"), matching(data_class="b")]) == 2


def test_too_many_limits_for_one_request_are_refused_with_their_number() -> None:
    rules = Limits(rules=(matching(),) * 11)
    keys = [("rpm",), ("rpm", "tpm", "max_in_flight")]
    assert list(check_room((), rules, keys, [Allowance(rpm=1, tpm=2)])) == []
    ((path, message, _),) = check_room((), rules, keys, [Allowance(rpm=1, tpm=2, usd_per_month=3)])
    assert path == ("rules",)
    assert "17 limits" in message


def test_a_secret_is_long_enough_to_be_one() -> None:
    assert list(check_limits((), Limits(secret=Secret("s" * 16)))) == []
    ((path, message, shown),) = check_limits(("limits",), Limits(secret=Secret("s" * 15)))
    assert (path, shown) == (("limits", "secret"), "")
    assert message == "is shorter than 16 characters: `gateway keys new` makes a good one"
