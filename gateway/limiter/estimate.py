"""How many tokens a request will take, before it is sent: what is reserved, and corrected when it is settled.

Prompt = text + media + framing. Text is counted exactly where the model names a tokenizer and the body is short; else
it is bytes over a ratio learned from what the same org and model used before, from 4 bytes a token on. Media follow the
rules of the target's vendor. Framing is what chat templates add to a message.

Answer = the caller's own limit; else what 19 of 20 earlier answers of the org stayed within; else the model's
`output_prior`; times the answers asked for. What of it a limit reserves that is smaller than all of it is the limit's
business.

Invariants: an estimate is between 0 and MAX_TOKENS, whatever a caller sends; only requests that the body tells whole,
with usage that the provider reported, teach a ratio, and only answers without a limit of the caller's teach a length.
Left out: buckets and money (`ledger/cost.py`).
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from gateway.dialects import measure
from gateway.dialects.asked import Asked
from gateway.dialects.mediarules import MediaRule
from gateway.limiter.learned import ABANDONED, COMPLETE, Learned
from gateway.limiter.tokens import MAX_INLINE_BYTES, Tokenizer
from gateway.record import Usage, UsageSource

OUTPUT_PRIOR: Final = 1024
MAX_TOKENS: Final = 10**8  # in thousandths still a charge the engines count (spec.MAX_AMOUNT)
MESSAGE_TOKENS: Final = 4  # role and separators; OpenAI's cookbook counts 3, and 1 for a name
ANSWER_TOKENS: Final = 3  # what primes the answer, by the same
LEARN_ALWAYS: Final = 128  # requests of an org and a model, in each worker
LEARN_EVERY: Final = 8
_REMEMBERED: Final = 8192
_NOT_COUNTED: Final = -1


class Weights(msgspec.Struct, frozen=True):
    """How a model entry weighs prompts: its vendor's rule for media, and its tokenizer if it names one."""

    media: MediaRule
    tokenizer: Tokenizer | None = None


class Estimator:
    """The estimates of one snapshot. `weights` has a row for each model entry; the entry's name is the model's key."""

    def __init__(self, learned: Learned, weights: Mapping[str, Weights]) -> None:
        self._learned = learned
        self._weights = weights
        self._taught: dict[tuple[str, str], int] = {}

    def prompt(self, org: str, model: str, asked: Asked, surface: str = "", body: bytes = b"") -> int:
        """Tokens of a request's prompt. With `surface` and `body` a short text is counted exactly where it can be."""
        weights = self._weights[model]
        tokens = _NOT_COUNTED if weights.tokenizer is None else _counted(weights.tokenizer, surface, body)
        if tokens < 0:
            tokens = _ceil(asked.text_bytes / self._learned.bytes_per_token(org, model))
        tokens += _framing(asked) + asked.tokens
        if asked.media:
            tokens += sum(map(weights.media, asked.media))
        return tokens if tokens < MAX_TOKENS else MAX_TOKENS  # noqa: FURB136 - hot, as below

    def output(self, model: str, asked_max: int | None, prior: int = OUTPUT_PRIOR, n: int = 1, *, org: str = "") -> int:
        """Tokens of all `n` answers to a request, whatever a limit has room for."""
        if asked_max is None:
            asked_max = self._learned.p95(COMPLETE, org, model) or prior
        tokens = asked_max * n
        return tokens if tokens < MAX_TOKENS else MAX_TOKENS  # noqa: FURB136

    def learn(self, org: str, model: str, asked: Asked, usage: Usage) -> None:
        """A request was answered in full, and this is what it used.

        Where much is known already, every LEARN_EVERY-th request teaches: learning costs more than estimating.
        """
        if usage.source is not UsageSource.PROVIDER:
            return
        if usage.reasoning_tokens:
            self._learned.saw_reasoning(org, model)
        key = (org, model)
        taught = self._taught.get(key, 0)
        if not taught and len(self._taught) >= _REMEMBERED:
            self._taught.clear()
        self._taught[key] = taught + 1
        if taught >= LEARN_ALWAYS and taught % LEARN_EVERY:
            return
        if asked.whole:
            text_tokens = usage.input_tokens - _framing(asked) - asked.tokens
            self._learned.saw_text(org, model, asked.text_bytes, text_tokens)
        if asked.max_output is None:
            self._learned.saw_answer(COMPLETE, org, model, -(-usage.output_tokens // asked.n))

    def metered(self, org: str, model: str, text_bytes: int) -> int:
        """Tokens of so much text of an answer: of a stream that was cut before it said its usage."""
        return min(_ceil(text_bytes / self._learned.bytes_per_token(org, model)), MAX_TOKENS)

    def reasons(self, org: str, model: str) -> bool:
        """Whether answers have been seen that used tokens nobody was shown."""
        return self._learned.reasons(org, model)

    def learn_abandoned(self, org: str, model: str, tokens: int) -> None:
        """A caller left, and its answer had come to so many tokens."""
        self._learned.saw_answer(ABANDONED, org, model, tokens)

    def abandoned(self, org: str, model: str) -> int | None:
        """Tokens that 19 of 20 abandoned answers of this org stayed within; None where too few are known."""
        return self._learned.p95(ABANDONED, org, model)


def _counted(tokenizer: Tokenizer, surface: str, body: bytes) -> int:
    """Tokens of a body's text, _NOT_COUNTED where it is long or not all of it can be seen."""
    texts = measure.texts(surface, body) if 0 < len(body) <= MAX_INLINE_BYTES else None
    return _NOT_COUNTED if texts is None else tokenizer.count(texts)


def _framing(asked: Asked) -> int:
    return asked.messages * MESSAGE_TOKENS + ANSWER_TOKENS if asked.messages else 0


def _ceil(tokens: float) -> int:
    return -int(-tokens // 1)
