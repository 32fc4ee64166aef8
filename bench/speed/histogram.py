"""Latency distributions as bench/native/load prints them, and how several are merged.

The bucket rule is that of bench/native/histogram.h: 64 buckets per power of two, so any value is known to 1.6 %.
Merging adds counts, which is exact; an average of quantiles is not, so a pooled quantile comes from the merged counts.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

SUB_BITS: Final = 6
SUB: Final = 1 << SUB_BITS
MAX_BITS: Final = 40
BUCKETS: Final = (MAX_BITS - SUB_BITS + 1) * SUB


def bucket_of(ns: int) -> int:
    """The bucket that holds `ns`; the last one takes everything from 2**40 ns (18 minutes) up."""
    if ns < SUB:
        return ns
    if ns >= 1 << MAX_BITS:
        return BUCKETS - 1
    shift = ns.bit_length() - 1 - SUB_BITS
    return (shift + 1) * SUB + ((ns >> shift) & (SUB - 1))


def bucket_upper(bucket: int) -> int:
    """The largest value in ns that falls into `bucket`."""
    if bucket < SUB:
        return bucket
    return ((SUB + bucket % SUB + 1) << (bucket // SUB - 1)) - 1


@dataclass
class Histogram:
    """Counts by bucket, with the exact number, sum and maximum of what was recorded (ns)."""

    counts: dict[int, int] = field(default_factory=dict)
    total: int = 0
    sum_ns: int = 0
    max_ns: int = 0

    @classmethod
    def parse(cls, printed: Mapping[str, Any]) -> Self:
        """The histogram that `load` printed; raises ValueError if its counts do not add up."""
        counts = {int(bucket): int(count) for bucket, count in printed["buckets"]}
        if sum(counts.values()) != printed["count"]:
            raise ValueError("the histogram's counts do not add up")
        return cls(counts, printed["count"], printed["sum_ns"], printed["max_ns"])

    @classmethod
    def merged(cls, parts: Iterable["Histogram"]) -> Self:
        """All that the parts recorded, as if one histogram had."""
        whole = cls()
        for part in parts:
            for bucket, count in part.counts.items():
                whole.counts[bucket] = whole.counts.get(bucket, 0) + count
            whole.total += part.total
            whole.sum_ns += part.sum_ns
            whole.max_ns = max(whole.max_ns, part.max_ns)
        return whole

    def add(self, ns: int) -> None:
        """Record one value."""
        bucket = bucket_of(ns)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.total += 1
        self.sum_ns += ns
        self.max_ns = max(self.max_ns, ns)

    def quantile_us(self, q: float) -> float:
        """The q-quantile in µs: the upper edge of its bucket, never above the exact maximum; 0 when empty."""
        rank, seen = max(1, math.ceil(q * self.total)), 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= rank:
                return min(bucket_upper(bucket), self.max_ns) / 1e3
        return 0.0

    def summary(self) -> dict[str, object]:
        """For raw.json: the usual quantiles in µs, and the buckets that they came from."""
        return {
            "count": self.total,
            "p50_us": self.quantile_us(0.5),
            "p90_us": self.quantile_us(0.9),
            "p99_us": self.quantile_us(0.99),
            "p99.9_us": self.quantile_us(0.999),
            "max_us": self.max_ns / 1e3,
            "buckets": sorted(self.counts.items()),
        }
