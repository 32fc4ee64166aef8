"""From outcomes to findings: what the gateway added, and whether that is within the profile's thresholds.

The same profile runs twice, and the second run's p99 minus the first's is what was added: in front of the provider
alone and through the gateway; for the noisy neighbour through the gateway alone and beside the flood, entries that only
the second run has (the flood itself) not being judged. Percentiles are Locust's own: whole milliseconds up to 100, two
digits above, so thresholds here are of that size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.load.books import Books
from bench.load.drive import Entry, Outcome, Size
from bench.load.profiles import (
    MAX_GROWTH_MB,
    MAX_P99_ADDED_MS,
    MAX_REFUSAL_P99_MS,
    QUOTA_CAPACITY,
    QUOTA_RPM,
    Profile,
)
from bench.load.stage import Sim, Watched

MIN_RATE_HELD: Final = 0.9
MAX_DESCRIPTORS_GAINED: Final = 50
QUOTA_SLACK_S: Final = 2.0  # by which Locust's clock of a run and ours may differ
OK: Final = 200
SETTLED: Final = 0.25  # of a soak, after which nothing may grow


@dataclass(frozen=True)
class Finding:
    """One threshold, what was seen, and whether it holds; without a threshold it is only told."""

    what: str
    seen: str
    limit: str
    holds: bool

    @property
    def word(self) -> str:
        """For the table."""
        if not self.limit:
            return "not judged"
        return "holds" if self.holds else "missed"


def judge(profile: Profile, size: Size, before: Outcome | None, after: Outcome) -> list[Finding]:
    """Everything that the two runs say; without a first one, latencies are what they are and not judged."""
    found = [_answers(after), _rate(size, profile, after)]
    if before is None:
        return found + [_told(entry) for entry in after.entries]
    added = [_added(was, entry) for entry in after.entries if (was := before.entry(entry))]
    return [*found, _comparable(before), *added]


def at_quota(size: Size, outcome: Outcome) -> list[Finding]:
    """Whether the key above its quota got what it may, and how long refusals took; they were checked one by one.

    The statistics begin once all users are there, when its bucket may be anything between empty and full.
    """
    counts = {entry.name: entry.count for entry in outcome.entries if entry.kind == "POST"}
    admitted, refused = counts.get("at quota", 0), counts.get("at quota refused", 0)
    due = QUOTA_RPM / 60 * size.counted_s
    least, most = due * MIN_RATE_HELD, due + QUOTA_CAPACITY + QUOTA_RPM / 60 * QUOTA_SLACK_S
    p99_ms = max((entry.p99_ms for entry in outcome.entries if entry.name.endswith(" refused")), default=0.0)
    waited = counts.get("patient refused", 0)
    return [
        Finding("admitted at quota", f"{admitted:,}", f"{least:,.0f} … {most:,.0f}", least <= admitted <= most),
        Finding("refused above it", f"{refused:,}", "some", refused > 0),
        Finding("p99 of a refusal", f"{p99_ms:.0f} ms", f"< {MAX_REFUSAL_P99_MS:.0f} ms", p99_ms < MAX_REFUSAL_P99_MS),
        Finding("waits that a patient caller was told, and kept", f"{waited:,}", "some", waited > 0),
    ]


def _answers(outcome: Outcome) -> Finding:
    worst = max(outcome.problems, key=lambda words: outcome.problems[words], default="")
    seen = f"{outcome.failures:,} of {outcome.requests:,}" + (f", most often: {worst}" if worst else "")
    return Finding("refused, broken or wrong answers", seen, "none", outcome.failures == 0 and outcome.requests > 0)


def _comparable(before: Outcome) -> Finding:
    seen = f"{before.failures:,} of {before.requests:,}"
    return Finding("the same, in the run to compare with", seen, "none", before.failures == 0 and before.requests > 0)


def _rate(size: Size, profile: Profile, outcome: Outcome) -> Finding:
    """A load that was not brought proves nothing. Conversations and floods are several requests each, so at least."""
    rps = outcome.requests / size.counted_s
    share = 0.5 if profile.quiet_users else 1.0  # half of the users are quiet
    due = size.rate * share * size.counted_s
    wanted = max(1.0, due * MIN_RATE_HELD - 3 * due**0.5) / size.counted_s  # arrivals are random
    return Finding("requests a second", f"{rps:,.1f}", f"≥ {wanted:,.1f}", rps >= wanted)


def _told(entry: Entry) -> Finding:
    return Finding(f"p99, {entry.label}", f"{entry.p99_ms:.0f} ms (p50 {entry.p50_ms:.0f})", "", holds=True)


def _added(was: Entry, now: Entry) -> Finding:
    added = now.p99_ms - was.p99_ms
    seen = f"{added:+.0f} ms ({was.p99_ms:.0f} → {now.p99_ms:.0f}; p50 {was.p50_ms:.0f} → {now.p50_ms:.0f})"
    limit = f"< {MAX_P99_ADDED_MS:.0f} ms"
    if added <= -MAX_P99_ADDED_MS:
        return Finding(
            f"p99 added, {now.label}", f"{seen}: the first run was disturbed, run it again", limit, holds=False
        )
    return Finding(f"p99 added, {now.label}", seen, limit, added < MAX_P99_ADDED_MS)


def flat(looks: Sequence[Watched]) -> list[Finding]:
    """Whether memory and descriptors grew after the first quarter, by the medians of a tenth at either end."""
    settled = looks[int(len(looks) * SETTLED) :]
    if len(settled) < 2:  # noqa: PLR2004 - a beginning and an end
        return [Finding("memory and descriptors", f"{len(looks)} looks", "enough to judge", holds=False)]
    part = max(1, len(settled) // 10)
    first, last = settled[:part], settled[-part:]
    grown_mb = (_median([look.rss_kb for look in last]) - _median([look.rss_kb for look in first])) / 1024
    gained = _median([look.descriptors for look in last]) - _median([look.descriptors for look in first])
    return [
        Finding("worker's memory gained", f"{grown_mb:+.1f} MB", f"≤ {MAX_GROWTH_MB:g} MB", grown_mb <= MAX_GROWTH_MB),
        Finding(
            "descriptors gained",
            f"{gained:+.0f}",
            f"≤ {MAX_DESCRIPTORS_GAINED}",
            gained <= MAX_DESCRIPTORS_GAINED,
        ),
    ]


def governed(outcome: Outcome, written: Books) -> list[Finding]:
    """Whether every request that was answered was counted and recorded; what was sent before the statistics is, too."""
    return [
        Finding("micro-USD in the key's budget", f"{written.spent_microusd:,.0f}", "some", written.spent_microusd > 0),
        Finding("slots still taken in the end", f"{written.taken:,.0f}", "none", written.taken == 0),
        Finding(
            "exchanges in the journal",
            f"{written.recorded:,}",
            f"≥ {outcome.requests:,}",
            written.recorded >= outcome.requests,
        ),
    ]


def healed(sims: Sequence[Sim]) -> list[Finding]:
    """Whether the spare provider was asked while the first failed, and the first again after it healed.

    The first's log was emptied when it healed, and nobody else asks the spare one.
    """
    first, spare = sims[0].seen(), sims[1].seen()
    answered = sum(1 for entry in first if entry["status"] == OK)
    return [
        Finding("asked of the spare provider while the first failed", f"{len(spare)}", "some", bool(spare)),
        Finding("answered by the first provider once it healed", f"{answered}", "some", answered > 0),
    ]


def _median(values: Sequence[int]) -> int:
    return sorted(values)[len(values) // 2]


def markdown(findings: Sequence[Finding]) -> str:
    """As a table."""
    rows = [f"| {f.what} | {f.seen} | {f.limit or '–'} | **{f.word}** |" for f in findings]
    return "\n".join(["| what | seen | threshold | |", "|---|---|---|---|", *rows])
