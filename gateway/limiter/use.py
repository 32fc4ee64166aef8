"""What a request uses: one number for each resource that a limit can be on.

A Use is an estimate, a reservation or a settlement; they are told apart by where they stand. Numbers are whole
requests, tokens, micro-USD and slots; what they are in a bucket's own unit is the limit's business (`rules.py`).
"""

from enum import IntEnum
from typing import Final, NamedTuple


class Resource(IntEnum):
    """What a limit counts; the value is the place in a Use."""

    REQUESTS = 0
    TOKENS = 1
    INPUT_TOKENS = 2
    OUTPUT_TOKENS = 3
    USD = 4
    IN_FLIGHT = 5


class Use(NamedTuple):
    """So much of every resource. The order is that of Resource."""

    requests: int
    tokens: int
    input_tokens: int
    output_tokens: int
    microusd: int
    slots: int


class Estimate(NamedTuple):
    """What is reserved: `full`, and `prompt`, which is what the request costs even if the answer is empty.

    A limit that never allows `full` at once is asked for all it has instead, so that a cold start is admitted; only a
    prompt that never fits is refused for good.
    """

    full: Use
    prompt: Use


_made: Final = tuple.__new__  # what a NamedTuple's own __new__ calls, without a frame of Python: these are hot
NOTHING: Final = Use(0, 0, 0, 0, 0, 0)
REQUEST: Final = Use(1, 0, 0, 0, 0, 1)
"""A request that used nothing else."""
UNREAD: Final = Estimate(REQUEST, REQUEST)
"""A request of which only the path is known: it is limited by the request, and refused while there is debt."""


def use(input_tokens: int, output_tokens: int, microusd: int = 0) -> Use:
    """What one request uses, by its tokens and their cost."""
    return _made(Use, (1, input_tokens + output_tokens, input_tokens, output_tokens, microusd, 1))


def expected(input_tokens: int, output_tokens: int, microusd: int, prompt_microusd: int) -> Estimate:
    """What one request is expected to use, and to cost with its answer and without."""
    full = _made(Use, (1, input_tokens + output_tokens, input_tokens, output_tokens, microusd, 1))
    return _made(Estimate, (full, _made(Use, (1, input_tokens, input_tokens, 0, prompt_microusd, 1))))


def most(one: Use, other: Use) -> Use:
    """The greater of each; tokens are the sum of the parts that were chosen, if that is more."""
    greater = Use._make(map(max, one, other))
    return greater._replace(tokens=max(greater.tokens, greater.input_tokens + greater.output_tokens))


def and_besides(one: Use, other: Use) -> Use:
    """What a request used, and what an attempt of it before had used: tokens and money add up, the request is one."""
    return Use(
        one.requests,
        one.tokens + other.tokens,
        one.input_tokens + other.input_tokens,
        one.output_tokens + other.output_tokens,
        one.microusd + other.microusd,
        one.slots,
    )
