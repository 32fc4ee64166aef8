"""What settled requests teach about the next ones: bytes a token, and how long answers are. Shared by all workers.

Two tables in one section of the control segment, each with room for a fixed number of (org, model) pairs:

- Ratios. A row is *one word*: a tag, and sums of tokens and of bytes, which decay, so that the latest 130,000 tokens
  or so decide. A reader sees a whole row or another whole row, never half of one.
- Answers. A row is a histogram of lengths, eight buckets to the octave, and the 95th percentile found in it when it was
  last looked for; a reader needs that one word. Halved at MAX_SAMPLES, so that old habits fade.

What one org does teaches nothing about another: an org with long answers or an unusual script must not make another's
requests dearer, nor too large. A pair that is new begins with what is known of nobody; a few requests are enough. Keys
without an org are one org.

Nothing is locked. Aligned words are never torn (`segment.py`), so what writers can do to each other is lose a sample,
or count one in the wrong row while two of them claim it: estimates, of which the next settlement is the correction.
What is read is always within bounds. When every place a pair may take is taken, the row with the least evidence there
gives way, after it has been halved to nothing by those who wanted its place: an active row outlives passers-by.

Which pairs think unseen is known to the process alone that saw it, and outlives its snapshots.

Left out: whether a request may teach at all (`estimate.py`). Nothing is kept over a restart.
"""

from hashlib import blake2b
from typing import Final

from gateway.segment import Section

LEAST_RATIO: Final = 1.5  # bytes a token: below it, what is counted is not this text
MOST_RATIO: Final = 8
PRIOR_RATIO: Final = 4.0
PRIOR_TOKENS: Final = 256  # how much evidence a prior stands for
_ENOUGH: Final = 64 * PRIOR_TOKENS  # evidence that needs no prior any more
MIN_SAMPLES: Final = 50
MAX_SAMPLES: Final = 4096
MAX_TOKENS: Final = 2**20 - 1  # of one answer; a longer one counts as that

RATIO_ROWS: Final = 2**13
ANSWER_ROWS: Final = 2**10
_PROBES: Final = 8
_REMEMBERED: Final = 8192

_TOKEN_BITS: Final = 18
_BYTE_BITS: Final = 21
_TAG_BITS: Final = 24
_ROW_TAG_BITS: Final = 63  # of a row of answers
_TOKEN_MASK: Final = 2**_TOKEN_BITS - 1
_BYTE_MASK: Final = 2**_BYTE_BITS - 1
_TAG_AT: Final = _TOKEN_BITS + _BYTE_BITS
_HALVE_AT: Final = 2**17  # tokens
_MOST_WEIGHT: Final = 2**14  # tokens that one sample counts for; with _HALVE_AT below 2^18, and eight times below 2^21

_SUB: Final = 8  # buckets to the octave: a length is known to 12.5 %
_BUCKETS: Final = _SUB * (MAX_TOKENS.bit_length() - 2)
_TAG, _SAMPLES, _P95, _FIRST = range(4)
_ANSWER_WORDS: Final = _FIRST + _BUCKETS
_EAGER: Final = 64  # up to so many samples the percentile is found anew at each, then at every sixteenth
_EVERY: Final = 16

LEARNED: Final = Section("learned", version=1, words_shared=RATIO_ROWS + ANSWER_ROWS * _ANSWER_WORDS)


COMPLETE: Final = "complete"  # which answers a length is of: those that ended by themselves,
ABANDONED: Final = "abandoned"  # and those whose caller left
_RATIO: Final = "r"  # beside those two, in the name of a ratio's row


class Learned:
    """One process's access to the tables. `words` is the shared part of LEARNED."""

    def __init__(self, words: memoryview) -> None:
        self._ratios = words[:RATIO_ROWS]
        self._answers = words[RATIO_ROWS : RATIO_ROWS + ANSWER_ROWS * _ANSWER_WORDS]
        self._spots: dict[tuple[str, ...], _Spot] = {}
        self._reasoning = set[tuple[str, str]]()

    # --- bytes a token ------------------------------------------------------------------------------------------------

    def bytes_per_token(self, org: str, model: str) -> float:
        """What a token of text takes there, in LEAST_RATIO to MOST_RATIO; PRIOR_RATIO where nothing is known.

        A row is mixed with the prior, which fades as evidence grows.
        """
        name = (_RATIO, org, model)
        spot = self._spots.get(name) or self._spot(name, _TAG_BITS)
        word = self._ratios[spot.at % RATIO_ROWS]
        if word >> _TAG_AT != spot.tag:
            word = self._ratio(spot)
        tokens, size = word & _TOKEN_MASK, word >> _TOKEN_BITS & _BYTE_MASK
        if tokens > _ENOUGH:
            return size / tokens
        return (size + PRIOR_RATIO * PRIOR_TOKENS) / (tokens + PRIOR_TOKENS)

    def saw_text(self, org: str, model: str, text_bytes: int, tokens: int) -> None:
        """A settled request: so much text was so many tokens."""
        if text_bytes <= 0 or tokens <= 0:
            return
        weight = min(tokens, _MOST_WEIGHT)
        size = min(max(text_bytes * weight // tokens, int(weight * LEAST_RATIO)), weight * MOST_RATIO)
        self._add(org, model, weight, size)

    def _ratio(self, spot: "_Spot") -> int:
        """The word of a row that is not where it was, 0 where there is none."""
        words = self._ratios
        for at in range(spot.home, spot.home + _PROBES):
            word: int = words[at % RATIO_ROWS]
            if word >> _TAG_AT == spot.tag:
                spot.at = at
                return word
            if not word:
                break
        return 0

    def _add(self, org: str, model: str, tokens: int, size: int) -> None:
        name = (_RATIO, org, model)
        spot = self._spots.get(name) or self._spot(name, _TAG_BITS)
        words, first, tag = self._ratios, spot.home, spot.tag
        weakest, least = first % RATIO_ROWS, _TOKEN_MASK + 1
        for probe in range(first, first + _PROBES):
            at = probe % RATIO_ROWS
            word = words[at]
            if not word or word >> _TAG_AT == tag:
                spot.at = probe
                self._put(at, tag, (word & _TOKEN_MASK) + tokens, (word >> _TOKEN_BITS & _BYTE_MASK) + size)
                return
            if word & _TOKEN_MASK < least:
                weakest, least = at, word & _TOKEN_MASK
        if least <= PRIOR_TOKENS:
            self._put(weakest, tag, tokens, size)
        else:
            word = words[weakest]
            self._put(weakest, word >> _TAG_AT, (word & _TOKEN_MASK) // 2, (word >> _TOKEN_BITS & _BYTE_MASK) // 2)

    def _put(self, at: int, tag: int, tokens: int, size: int) -> None:
        if tokens >= _HALVE_AT:
            tokens, size = tokens // 2, size // 2
        self._ratios[at] = tag << _TAG_AT | size << _TOKEN_BITS | tokens

    # --- thinking unseen ----------------------------------------------------------------------------------------------

    def saw_reasoning(self, org: str, model: str) -> None:
        """An answer used tokens that nobody was shown."""
        if len(self._reasoning) < _REMEMBERED:
            self._reasoning.add((org, model))

    def reasons(self, org: str, model: str) -> bool:
        """Whether there was such an answer."""
        return (org, model) in self._reasoning

    # --- lengths of answers -------------------------------------------------------------------------------------------

    def p95(self, answers: str, org: str, model: str) -> int | None:
        """Tokens that 19 of 20 such answers stay within (rounded up by at most an eighth), None below MIN_SAMPLES."""
        name = (answers, org, model)
        spot = self._spots.get(name) or self._spot(name, _ROW_TAG_BITS)
        row = spot.at % ANSWER_ROWS * _ANSWER_WORDS
        if self._answers[row] != spot.tag:
            row = self._find(spot)
        found = self._answers[row + _P95] if row >= 0 else 0
        return min(found, MAX_TOKENS + 1) if found > 0 else None

    def saw_answer(self, answers: str, org: str, model: str, tokens: int) -> None:
        """A settled request: its answer was so long."""
        self._count(answers, org, model, _bucket(min(max(tokens, 0), MAX_TOKENS)))

    def _count(self, answers: str, org: str, model: str, bucket: int) -> None:
        row = self._claim((answers, org, model))
        if row < 0:
            return
        words = self._answers
        words[row + _FIRST + bucket] += 1
        samples = words[row + _SAMPLES] = words[row + _SAMPLES] + 1
        if samples <= _EAGER or samples % _EVERY == 0:
            self._look(row)

    def _look(self, row: int) -> None:
        """Find the percentile anew, and halve the row when it is full."""
        words = self._answers
        counts = words[row + _FIRST : row + _ANSWER_WORDS].tolist()
        total = sum(counts)
        if total >= MIN_SAMPLES:
            words[row + _P95] = _percentile(counts, total)
        if total >= MAX_SAMPLES:
            counts = [count // 2 for count in counts]
            for bucket, count in enumerate(counts):
                words[row + _FIRST + bucket] = count
            total = sum(counts)
        words[row + _SAMPLES] = total

    def _find(self, spot: "_Spot") -> int:
        """A row that is not where it was, -1 where there is none."""
        words = self._answers
        for at in range(spot.home, spot.home + _PROBES):
            row = at % ANSWER_ROWS * _ANSWER_WORDS
            found = words[row]
            if found == spot.tag:
                spot.at = at
                return row
            if not found:
                break
        return -1

    def _claim(self, name: tuple[str, ...]) -> int:
        """The row of that name, made if there is room; -1 when others have all its places."""
        spot = self._spots.get(name) or self._spot(name, _ROW_TAG_BITS)
        words, first, tag = self._answers, spot.home, spot.tag
        weakest = -1
        for probe in range(first, first + _PROBES):
            row = probe % ANSWER_ROWS * _ANSWER_WORDS
            if words[row] == tag:
                spot.at = probe
                return row
            if not words[row]:
                return self._make(row, tag)
            if weakest < 0 or words[row + _SAMPLES] < words[weakest + _SAMPLES]:
                weakest = row
        if words[weakest + _SAMPLES] <= 1:
            return self._make(weakest, tag)
        words[weakest + _SAMPLES] //= 2
        return -1

    def _make(self, row: int, tag: int) -> int:
        """Empty a row and name it; the name comes last, so a process that dies here leaves the old one, emptied."""
        words = self._answers
        for word in range(row + _SAMPLES, row + _ANSWER_WORDS):
            words[word] = 0
        words[row + _TAG] = tag
        return row

    def _spot(self, name: tuple[str, ...], tag_bits: int) -> "_Spot":
        """The spot of a name that is not remembered."""
        if len(self._spots) >= _REMEMBERED:
            self._spots.clear()
        text = "\0".join(name).encode(errors="replace")
        digest = int.from_bytes(blake2b(text, digest_size=12).digest(), "little")
        spot = self._spots[name] = _Spot(digest >> 64, (digest & (1 << tag_bits) - 1) or 1)
        return spot


class _Spot:
    """Where the row of a name is looked for: the first of its places, the tag it bears, and where it was last."""

    __slots__ = ("at", "home", "tag")

    def __init__(self, home: int, tag: int) -> None:
        self.home = home
        self.tag = tag
        self.at = home


def _bucket(tokens: int) -> int:
    """The bucket of a length: its own up to 7, then eight to the octave."""
    if tokens < _SUB:
        return tokens
    octave = tokens.bit_length() - 4
    return (octave << 3) + (tokens >> octave)


def _longest(bucket: int) -> int:
    """The longest length in a bucket."""
    if bucket < _SUB:
        return bucket
    octave = (bucket >> 3) - 1
    return ((bucket & 7) + _SUB + 1 << octave) - 1


def _percentile(counts: list[int], total: int) -> int:
    """The longest length of the bucket that the 95th percentile is in, at least 1."""
    wanted = -(-total * 95 // 100)
    for bucket, count in enumerate(counts):
        wanted -= count
        if wanted <= 0:
            return max(_longest(bucket), 1)
    return MAX_TOKENS
