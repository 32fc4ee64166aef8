"""Which rules are for a request, what their buckets are called, and when they change."""

from typing import Any

import msgspec
import pytest

from gateway.config.limits import LABEL, SCOPES, Allowance, Rule, RuleMatch
from gateway.limiter.lines import FOREVER
from gateway.limiter.rules import PERIODS_MS, Limits, Subject
from gateway.limiter.spec import Kind, rate, slots
from tests.fakes.limits import START_MS, SUBJECT, limits_of, rules_of

HOUR_MS = 3_600_000
ALL = tuple(scope for scope in SCOPES if scope not in ("user", "end_user"))


def rule(name: str = "r", **said: Any) -> Rule:
    return Rule(**{"name": name, "tokens": 1000, "every": "minute", **said})


def buckets(limits: Limits | None, end_user: str = "", provider: str = "") -> list[str]:
    return [] if limits is None else [line.bucket for line in limits.lines(START_MS, end_user, provider).lines]


def subject(**changes: Any) -> Subject:
    return msgspec.structs.replace(SUBJECT, **changes)


# --- specs ----------------------------------------------------------------------------------------------------------

SPECS = [
    (rule(), rate(1_000_000, 1_000_000, 60_000), 1000),
    (rule(capacity=5), rate(5_000, 1_000_000, 60_000), 1000),
    (rule(tokens=None, requests=3, every="second"), rate(3_000, 3_000, 1_000), 1000),
    (rule(tokens=None, usd=0.5, budget=False, every="month"), rate(500_000, 500_000, 30 * 86_400_000), 1),
    (rule(tokens=None, usd=0.1, budget=False, capacity=0.7, every="week"), rate(700_000, 100_000, 604_800_000), 1),
    (rule(tokens=None, in_flight=4, every=None, shadow=True), slots(4, shadow=True), 1),
]


@pytest.mark.parametrize(("said", "spec", "unit"), SPECS)
def test_a_limit_in_the_buckets_own_units(said: Rule, spec: object, unit: int) -> None:
    (line,) = limits_of(said).lines(START_MS).lines
    assert (line.spec, line.unit) == (spec, unit)


@pytest.mark.parametrize("every", PERIODS_MS)
def test_every_period_of_a_rate_can_be_counted(every: str) -> None:
    (line,) = limits_of(rule(every=every, tokens=10**9)).lines(START_MS).lines
    assert line.spec.period_ms == PERIODS_MS[every]


def test_a_budget_has_the_window_of_its_zone() -> None:
    said = rule(tokens=None, usd=2, every="day", time_zone="Asia/Tokyo")
    (line,) = limits_of(said).lines(START_MS).lines
    assert (line.spec.kind, line.spec.limit, line.unit) == (Kind.WINDOW, 2_000_000, 1)
    assert line.spec.start_ms == START_MS - 17 * HOUR_MS  # 08:00 in UTC is 17:00 there
    assert line.spec.end_ms == line.spec.start_ms + 24 * HOUR_MS


def test_the_zone_of_all_budgets_is_that_of_the_limits() -> None:
    (line,) = limits_of(rule(budget=True, every="day"), time_zone="Asia/Tokyo").lines(START_MS).lines
    assert line.spec.start_ms == START_MS - 17 * HOUR_MS


def test_a_window_that_is_over_gives_way_to_the_next_and_only_then() -> None:
    limits = limits_of(rule(budget=True, every="hour"), rule("other"))
    first = limits.lines(START_MS)
    assert first.until_ms == START_MS + HOUR_MS
    assert limits.lines(START_MS + HOUR_MS - 1) is first is limits.plain
    second = limits.lines(START_MS + HOUR_MS)
    assert [line.spec.start_ms for line in second.lines] == [START_MS + HOUR_MS, 0]
    assert limits.plain is second


def test_a_clock_that_was_set_back_keeps_the_newer_window() -> None:
    limits = limits_of(rule(budget=True, every="hour"))
    newer = limits.lines(START_MS + HOUR_MS).lines[0].spec
    assert limits.lines(START_MS).lines[0].spec is newer


def test_rates_hold_for_ever() -> None:
    assert limits_of(rule()).lines(START_MS).until_ms == FOREVER


def test_one_bucket_has_one_spec_in_a_process() -> None:
    rules = rules_of(rule(), rule("b", budget=True, every="day"))
    for name in ("m1", "m2"):
        assert rules.limits(subject(model=name)) is not None
    one, two = (rules.limits(subject(model=name)) for name in ("m1", "m2"))
    assert one is not None
    assert two is not None
    pairs = zip(one.lines(START_MS).lines, two.lines(START_MS).lines, strict=True)
    assert all(first.spec is second.spec for first, second in pairs)


# --- names ----------------------------------------------------------------------------------------------------------


def test_every_scope_has_its_value() -> None:
    limits = limits_of(rule(per=(*ALL, "label:app")))
    (name,) = buckets(limits, provider="p1")
    assert name == (
        "r|org=acme|team=acme/search|key=demo|role=analyst|model=gpt-*|provider=p1|route=default|data_class=internal"
        "|label:app=ui"
    )


def test_a_rule_without_scopes_has_one_bucket() -> None:
    assert buckets(limits_of(rule())) == ["r"]


def test_values_cannot_be_mistaken_for_scopes() -> None:
    odd = subject(org="a/b|end_user=x", team="t%7C", labels={"app": "1|key=2"})
    (name,) = buckets(limits_of(rule(per=("team", "label:app")), subject=odd))
    assert name == "r|team=a%2Fb%7Cend_user=x/t%257C|label:app=1%7Ckey=2"


def test_teams_and_users_of_other_orgs_are_others() -> None:
    for scope in ("team", "user"):
        one, two = (buckets(limits_of(rule(per=(scope,)), subject=subject(org=org))) for org in ("a", "b"))
        assert one != two
    assert buckets(limits_of(rule(per=("team",)), subject=subject(org=""))) == ["r|team=search"]
    odd = subject(org="", team="acme/search")  # is not the team of acme
    assert buckets(limits_of(rule(per=("team",)), subject=odd)) == ["r|team=acme%2Fsearch"]


def test_people_are_not_named() -> None:
    limits = limits_of(rule(per=("key", "user", "end_user")))
    (name,) = buckets(limits, end_user="bob@example.org")
    assert "ann" not in name
    assert "bob" not in name
    assert buckets(limits, end_user="bob@example.org") == [name]
    assert buckets(limits, end_user="eve@example.org") != [name]
    (line,) = limits.lines(START_MS, "bob@example.org").lines
    assert line.whom == " for key demo and user and end user"


@pytest.mark.parametrize("scope", ["user", "end_user"])
def test_people_have_other_names_under_another_key(scope: str) -> None:
    one, two = (buckets(limits_of(rule(per=("key", scope)), name_key=key), "bob") for key in (b"a", b"b"))
    assert one != two
    domains = [buckets(limits_of(rule(per=("key", scope)), domain=name), "bob") for name in ("a", "b")]
    assert domains[0] == domains[1], "what is no secret makes no difference"


def test_who_names_no_end_user_shares_one_bucket_with_others_who_do_not() -> None:
    limits = limits_of(rule(per=("key", "end_user")))
    assert buckets(limits) == ["r|key=demo|end_user="]


def test_long_names_of_end_users_are_not_kept() -> None:
    """A caller may send as many as it likes, each as long as a body."""
    rules = rules_of(Rule(name="people", per=("key", "end_user"), requests=1, every="minute"))
    limits = rules.limits(SUBJECT)
    assert limits is not None
    names = ["a" * 10_000, "a" * 9_999 + "b", "\ud800" * 10_000, "ann"]
    buckets = {limits.lines(START_MS, name).lines[0].bucket for name in names}
    assert len(buckets) == len(rules._remembered) == len(names)
    assert [limits.lines(START_MS, name) for name in names] == list(rules._remembered.values())
    assert sum(len(end_user) for _, end_user, _ in rules._remembered) < 100


def test_end_users_are_remembered_within_bounds_for_all_keys_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.limiter.rules._MAX_REMEMBERED", 50)
    rules = rules_of(Rule(name="r", per=("key", "end_user"), requests=1, every="minute"))
    for key in range(10):
        limits = rules.limits(Subject(f"k{key}"))
        assert limits is not None
        first = limits.lines(0, "user 0")
        assert limits.lines(0, "user 0") is first
        for number in range(20):
            assert limits.lines(0, f"user {number}").lines[0].bucket.startswith(f"r|key=k{key}|end_user=")
            assert len(rules._remembered) <= 50


# --- whom a rule is for ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["org", "team", "user", "role", "data_class"])
def test_what_a_key_does_not_have_puts_it_outside_of_the_rule(scope: str) -> None:
    rules = rules_of(rule(per=(scope,)), rule(per=(scope, "model")))
    limits = rules.limits(subject())
    assert limits is not None
    assert len(buckets(limits)) == 2
    assert rules.limits(subject(**{scope: ""})) is None


def test_roles_and_classes_of_data_are_those_of_all_orgs_and_count_apart() -> None:
    rules = rules_of(rule(per=("role", "model")), rule("d", per=("data_class",)))
    names = [buckets(rules.limits(subject(org=org, team="", user=""))) for org in ("a", "b")]
    assert names[0] == names[1] == ["r|role=analyst|model=gpt-*", "d|data_class=internal"]
    other = buckets(rules.limits(subject(role="intern", data_class="public")))
    assert other == ["r|role=intern|model=gpt-*", "d|data_class=public"]


def test_a_caller_is_told_whose_limit_it_is() -> None:
    (line,) = limits_of(rule(per=("role", "data_class", "model"))).lines(START_MS).lines
    assert line.whom == " for role analyst and data class internal and model gpt-*"


def test_a_label_that_a_key_does_not_have_likewise() -> None:
    assert rules_of(rule(per=(f"{LABEL}tier",))).limits(subject()) is None


def test_a_request_without_a_model_is_still_limited_by_model() -> None:
    assert buckets(rules_of(rule(per=("model",))).limits(subject(model="", entry=""))) == ["r|model="]


MATCHES = [
    (RuleMatch(), True),
    (RuleMatch(org="acme", team="search", key="demo", user="ann", model="gpt-1", route="default"), True),
    (RuleMatch(role="analyst", data_class="int*"), True),
    (RuleMatch(role="intern"), False),
    (RuleMatch(data_class="public"), False),
    (RuleMatch(model="gpt-*", key="d*"), True),
    (RuleMatch(model="gpt-*", key="x*"), False),
    (RuleMatch(model="gpt-2"), False),
    (RuleMatch(label={"app": "ui"}), True),
    (RuleMatch(label={"app": "ui", "tier": "gold"}), False),
]


@pytest.mark.parametrize(("match", "expected"), MATCHES)
def test_all_that_is_said_must_fit(match: RuleMatch, expected: bool) -> None:
    assert (rules_of(rule(match=match)).limits(subject()) is not None) is expected


def test_nothing_limits_whom_no_rule_is_for() -> None:
    assert rules_of().limits(SUBJECT) is None
    assert rules_of(rule(match=RuleMatch(key="other"))).limits(SUBJECT) is None


def test_rules_at_a_provider_come_last_and_only_there() -> None:
    limits = limits_of(
        rule("at", match=RuleMatch(provider="p1")), rule("own", per=("key",)), rule("each", per=("provider",))
    )
    assert limits.varies
    assert buckets(limits, provider="p1") == ["own|key=demo", "at", "each|provider=p1"]
    assert buckets(limits, provider="p2") == ["own|key=demo", "each|provider=p2"]
    assert limits.lines(START_MS, provider="p1").own == 1
    assert not limits_of(rule()).varies


# --- short forms ----------------------------------------------------------------------------------------------------

ALLOWED = Allowance(rpm=600, tpm=100_000, max_in_flight=64, usd_per_month=20)


def test_short_forms_are_rules_of_keys_and_teams() -> None:
    rules = rules_of(teams={"search": Allowance(rpm=6000)})
    limits = rules.limits(subject(allowance=ALLOWED))
    assert limits is not None
    assert buckets(limits) == [
        "key.rpm|key=demo",
        "key.tpm|key=demo",
        "key.max_in_flight|key=demo",
        "key.usd_per_month|key=demo",
        "team.rpm|team=acme/search",
    ]
    told = [line.told for line in limits.lines(START_MS).lines]
    assert told == [
        "600 requests a minute",
        "100000 tokens a minute",
        "64 requests in flight",
        "20 USD a month",
        "6000 requests a minute",
    ]


def test_a_team_or_key_without_short_forms_has_none() -> None:
    rules = rules_of(teams={"other": ALLOWED, "search": Allowance()})
    assert rules.limits(subject(allowance=Allowance())) is None


def test_keys_with_the_same_limit_share_a_rule_and_count_apart() -> None:
    rules = rules_of()
    one, two = (rules.limits(subject(key=key, allowance=ALLOWED)) for key in ("a", "b"))
    assert one is not None
    assert two is not None
    assert not set(buckets(one)) & set(buckets(two))
    assert one.lines(START_MS).lines[0].spec is two.lines(START_MS).lines[0].spec


def test_every_hour_is_told_with_its_article() -> None:
    (line,) = limits_of(rule(every="hour", tokens=None, input_tokens=5)).lines(START_MS).lines
    assert line.told == "5 input tokens an hour"


@pytest.mark.parametrize(("own", "expected"), [(None, "closed"), ("open", "open")])
def test_a_rule_fails_as_it_says_or_as_all_do(own: str | None, expected: str) -> None:
    (line,) = limits_of(rule(on_store_failure=own), on_store_failure="closed").lines(START_MS).lines
    assert line.on_failure == expected


def test_a_limit_on_money_is_known_by_its_name() -> None:
    shadow = rule("s", tokens=None, usd=1, shadow=True)
    assert limits_of(rule(), shadow).money == ""
    assert limits_of(rule(), shadow, rule("m", per=("provider",), tokens=None, usd=1)).money == "m"
