"""Uses add up and compare resource by resource."""

from gateway.limiter.use import NOTHING, REQUEST, UNREAD, Estimate, Resource, Use, and_besides, expected, most, use


def test_the_places_of_a_use_are_the_resources() -> None:
    assert [name.upper() for name in Use._fields] == [
        {"USD": "MICROUSD", "IN_FLIGHT": "SLOTS"}.get(resource.name, resource.name) for resource in Resource
    ]
    assert list(Resource) == list(range(len(Use._fields)))


def test_tokens_are_those_of_prompt_and_answer() -> None:
    assert use(100, 20, 7) == Use(1, 120, 100, 20, 7, 1)
    assert (REQUEST.requests, REQUEST.tokens, sum(NOTHING)) == (1, 0, 0)
    assert UNREAD.full == UNREAD.prompt == REQUEST


def test_the_most_of_two_is_the_most_of_each_and_their_sum() -> None:
    assert most(use(100, 5, 1), use(90, 40, 9)) == Use(1, 140, 100, 40, 9, 1)
    assert most(use(1, 1), use(1, 1)) == use(1, 1)


def test_two_attempts_are_one_request() -> None:
    assert and_besides(use(10, 5, 3), use(20, 1, 2)) == use(30, 6, 5)
    assert and_besides(REQUEST, NOTHING) == REQUEST
    assert and_besides(NOTHING, use(1, 1)).requests == 0


def test_what_is_expected_is_told_with_and_without_the_answer() -> None:
    found = expected(100, 40, 900, 300)
    assert found == Estimate(use(100, 40, 900), use(100, 0, 300))
    assert (found.full.microusd, found.prompt.tokens) == (900, 100)
