"""A result as a folder: raw.json with every sample and its distribution, report.md for people.

The report opens with the verdict, since that is what is looked for, and says first of all if the run is void.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from bench.speed import disturbance, start, tls, verdict, workers
from bench.speed.disturbance import Thrown
from bench.speed.histogram import Histogram
from bench.speed.memory import LARGE_CARRIED, LARGE_CONNECTIONS, SMALL_CARRIED, MemoryResult
from bench.speed.sections import Sample, Settings
from bench.speed.start import PROCESSES, STATES, USED_REQUESTS, Start
from bench.speed.verdict import Goal, Range, Status
from bench.speed.workload import CHUNKS, LONG_CHUNKS


@dataclass(frozen=True)
class Result:
    """Everything a run found out."""

    conditions: dict[str, str]
    settings: Settings
    samples: Sequence[Sample]
    memory: Sequence[MemoryResult]
    rate: float | None = None  # of the latency section, requests a second
    remarks: Sequence[str] = ()
    thrown: Sequence[Thrown] = ()
    tls_memory: Sequence[MemoryResult] = ()
    starts: Sequence[Start] = ()

    @property
    def void(self) -> dict[str, list[str]]:
        """By section, why it says nothing."""
        return verdict.void_reasons(self.samples, self.rate, self.starts)

    def goals(self) -> list[Goal]:
        """All goals, as they stand for the subject."""
        subject, voided = self.settings.subject, self.void
        memory, tls = (
            next((result for result in results if result.target == subject), None)
            for results in (self.memory, self.tls_memory)
        )
        return [
            *verdict.speed_goals(self.samples, subject, voided, self.thrown),
            *verdict.memory_goals(memory),
            *verdict.tls_goals(tls),
            *verdict.start_goals(self.starts, self.thrown, subject, voided),
            *verdict.workers_goals(self.samples, self.thrown, subject, voided),
        ]

    def raw(self) -> dict[str, object]:
        """For raw.json."""
        return {
            "conditions": self.conditions,
            "settings": asdict(self.settings),
            "rate": self.rate,
            "void": self.void,
            "remarks": list(self.remarks),
            "samples": [sample.summary() for sample in self.samples],
            "thrown": [one.summary() for one in self.thrown],
            "memory": [result.summary() for result in self.memory],
            "tls_memory": [result.summary() for result in self.tls_memory],
            "starts": [one.summary() for one in self.starts],
        }


def fresh_folder(base: Path) -> Path:
    """`base`, or `base-2`, `base-3`, … when there is a result already: results are kept, never overwritten."""
    for number in range(1, 1000):
        folder = base if number == 1 else base.with_name(f"{base.name}-{number}")
        if not folder.exists():
            return folder
    raise FileExistsError(f"a thousand results like {base.name}")


def write(result: Result, folder: Path) -> None:
    """Write raw.json and report.md into `folder`, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "raw.json").write_text(json.dumps(result.raw(), separators=(",", ":")) + "\n")
    (folder / "report.md").write_text(markdown(result))


def markdown(result: Result) -> str:
    """The whole report."""
    subject = result.settings.subject
    parts = [f"# Speed beside nginx: {subject}, {result.conditions['date'][:10]}", _verdict(result)]
    targets = result.settings.targets
    parts += [
        _section("Plain requests", _json_lead(result), _json_table(result.samples, targets)),
        _section(
            "Streams at a model's pace",
            _sse_lead(result),
            _sse_table(result.samples, targets, "sse-paced"),
        ),
        _section(
            "Long streams at a model's pace",
            f"The same with {LONG_CHUNKS} chunks in a stream, so that a request's own cost is shared by more of them.",
            _sse_table(result.samples, targets, "sse-long"),
        ),
        _section("Streams as fast as they go", "", _sse_table(result.samples, targets, "sse-flat-out")),
        _section("Latency at half load", _latency_lead(result), _latency_tables(result.samples, targets)),
        _memory(result.memory),
        _section("TLS on both sides", TLS_LEAD, _tls_tables(result)),
        _section("Start", _start_lead(), _start_table(result.starts)),
        _section("Workers", _workers_lead(result), _workers_table(result.samples, subject)),
        _conditions(result),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


# ---- the verdict


def _verdict(result: Result) -> str:
    lines = ["## Verdict", ""]
    for section, reasons in result.void.items():
        lines += [f"**The run is void for {section}**: {reason}." for reason in reasons]
    if result.void:
        lines.append("")
    lines += ["| goal | limit | measured (min – max) | |", "|---|---|---|---|"]
    lines += [_goal_row(goal) for goal in result.goals()]
    wrong = {target: verdict.wrong_answers(result.samples, result.thrown, target) for target in result.settings.targets}
    if any(wrong.values()):
        listed = ", ".join(f"{target} {count:,}" for target, count in wrong.items() if count)
        lines += ["", f"Wrong or missing answers: {listed}."]
    kept = [(sample.section, sample.disturbance) for sample in result.samples]
    kept += [(start.SECTION, one.disturbance) for one in result.starts]
    remarks = [*result.remarks, *disturbance.report(kept, result.thrown)]
    lines += ["", *(f"- {remark}" for remark in remarks)] if remarks else []
    return "\n".join(lines)


def _goal_row(goal: Goal) -> str:
    sign = "≥" if goal.floor else "≤"
    word = goal.status.value
    if goal.status in {Status.MET, Status.MISSED} and goal.close and goal.value and goal.value.low < goal.value.high:
        word += ", but the limit lies within the range"
    if goal.wrong_answers:
        word += f"; {goal.wrong_answers:,} wrong answers"
    return f"| {goal.name} | {sign} {goal.limit:g} {goal.unit} | {_range(goal.value, 2)} | **{word}** |"


# ---- tables


def _section(title: str, lead: str, table: str) -> str:
    return "\n\n".join(part for part in (f"## {title}", lead, table) if part) if table else ""


def _range(value: Range | None, digits: int = 1) -> str:
    if value is None:
        return "–"
    text = f"{value.median:,.{digits}f}"
    return text if value.low == value.high else f"{text} ({value.low:,.{digits}f} – {value.high:,.{digits}f})"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", "|" + "---|" * len(head), *body]) if body else ""


def _each(
    samples: Sequence[Sample], targets: Sequence[str], section: str, row: Callable[[list[Sample]], list[str]]
) -> list[list[str]]:
    found = ((target, verdict.of(samples, section, target)) for target in targets)
    return [[target, *row(own)] for target, own in found if own]


def _figure(samples: Sequence[Sample], value: Callable[[Sample], float], digits: int = 1) -> str:
    return _range(Range.of(value(sample) for sample in samples), digits)


def _cpu(samples: Sequence[Sample]) -> list[str]:
    if not any(sample.cpu_us and sample.units for sample in samples):
        return ["–", "–"]
    return [_figure(samples, lambda s: s.cpu_us_per_unit), _figure(samples, lambda s: s.busiest_us_per_unit)]


def _pooled_ms(samples: Sequence[Sample], pick: Callable[[Sample], Histogram], *quantiles: float) -> str:
    pooled = Histogram.merged(pick(sample) for sample in samples)
    return " / ".join(f"{pooled.quantile_us(q) / 1e3:.2f}" for q in quantiles) if pooled.total else "–"


def _json_lead(result: Result) -> str:
    return (
        f"1,000 bytes in, 1,000 bytes out, {result.settings.connections} connections, closed loop, no upstream delay. "
        "CPU is that of all the target's processes, and of the busiest one alone."
    )


def _json_table(samples: Sequence[Sample], targets: Sequence[str]) -> str:
    def row(own: list[Sample]) -> list[str]:
        beside = verdict.paired(samples, "json", (own[0].target, "nginx"), verdict.rate_ratio)
        latency = _pooled_ms(own, lambda s: s.load.latency, 0.5, 0.99)
        return [_figure(own, lambda s: s.load.rps, 0), _range(beside, 2), *_cpu(own), latency]

    head = ("target", "requests/s", "× nginx", "µs CPU/request", "busiest process", "p50 / p99 ms")
    return _table(head, _each(samples, targets, "json", row))


def _sse_lead(result: Result) -> str:
    settings = result.settings
    return (
        f"{settings.streams} streams at once, each {CHUNKS} chunks of 200 bytes, one every {settings.interval_ms} ms. "
        "Lag is how much later than that a chunk came behind the one before; time to first token counts from the "
        "request."
    )


def _sse_table(samples: Sequence[Sample], targets: Sequence[str], section: str) -> str:
    def beside(own: list[Sample]) -> str:
        if not own[0].cpu_us:
            return "–"
        return _range(verdict.paired(samples, section, (own[0].target, "nginx"), verdict.cost_ratio), 2)

    def row(own: list[Sample]) -> list[str]:
        return [
            _figure(own, lambda s: s.units_per_s, 0),
            _figure(own, lambda s: s.load.rps, 0),
            *_cpu(own),
            beside(own),
            _pooled_ms(own, lambda s: s.load.ttft, 0.5, 0.99),
            _pooled_ms(own, lambda s: s.load.lag, 0.5, 0.99) if section != "sse-flat-out" else "–",
        ]

    head = (
        "target",
        "chunks/s",
        "streams/s",
        "µs CPU/chunk",
        "busiest process",
        "× nginx CPU",
        "first token p50 / p99 ms",
        "lag p50 / p99 ms",
    )
    return _table(head, _each(samples, targets, section, row))


def _latency_lead(result: Result) -> str:
    if result.rate is None:
        return ""
    half = "as asked" if result.settings.rate else f"half of what the subject ({result.settings.subject}) can do"
    return (
        f"Open loop, Poisson arrivals at {result.rate:,.0f} requests a second, {half}; latency counts from the moment "
        "a request was due. Added is the target's quantile minus direct's in the same repeat."
    )


def _latency_tables(samples: Sequence[Sample], targets: Sequence[str]) -> str:
    latency, core = _latency_table(samples, targets), _core_table(samples, targets)
    said = (
        "Whose the target's core was meanwhile. A request that comes while somebody else has it must wait, and so must "
        "each that comes while the worker is at one thing for long: p99 is made of such waits."
    )
    return f"{latency}\n\n{said}\n\n{core}" if latency else ""


def _core_table(samples: Sequence[Sample], targets: Sequence[str]) -> str:
    def row(own: list[Sample]) -> list[str]:
        ranges = (Range.of(shares) for shares in zip(*(sample.shares() for sample in own), strict=True))
        return [f"{r.median:.0%} ({r.low:.0%} – {r.high:.0%})" if r else "–" for r in ranges]

    head = (
        "target",
        "its busiest process",
        "its other processes",
        "other programs",
        "the bench's other targets, and nobody",
    )
    return _table(head, _each(samples, targets, "latency", row))


def _latency_table(samples: Sequence[Sample], targets: Sequence[str]) -> str:
    def added(own: list[Sample], q: float) -> str:
        def difference(ours: Sample, direct: Sample) -> float:
            return (ours.load.latency.quantile_us(q) - direct.load.latency.quantile_us(q)) / 1e3

        return _range(verdict.paired(samples, "latency", (own[0].target, "direct"), difference), 3)

    def row(own: list[Sample]) -> list[str]:
        return [
            _figure(own, lambda s: s.load.latency.quantile_us(0.5) / 1e3, 3),
            _figure(own, lambda s: s.load.latency.quantile_us(0.99) / 1e3, 3),
            added(own, 0.5),
            added(own, 0.99),
            _pooled_ms(own, lambda s: s.load.latency, 0.999, 1.0),
            _pooled_ms(own, lambda s: s.load.lateness, 0.99),
        ]

    head = ("target", "p50 ms", "p99 ms", "p50 added", "p99 added", "p99.9 / max ms", "generator late p99 ms")
    return _table(head, _each(samples, targets, "latency", row))


TLS_LEAD: Final = (
    "The plain requests of above, with TLS between callers and target and between target and provider; certificates "
    "are verified. It is TLS 1.3 with ECDSA on P-256. The callers' and the provider's side of it is an nginx each, on "
    "core 1 with the rest, so rates end where core 1 does: CPU is the figure. Windows are shorter than before. Kept: "
    "connections carry one request after the other. New: a connection and a whole handshake for each request on the "
    "callers' side; the target keeps its own to the provider."
)


def _tls_tables(result: Result) -> str:
    requests, streams = _tls_requests(result.samples, result.settings.targets), _tls_streams(result.tls_memory)
    return "\n\n".join(table for table in (requests, streams) if table)


def _tls_requests(samples: Sequence[Sample], targets: Sequence[str]) -> str:
    rows = []
    for section, connections in ((tls.KEPT, "kept"), (tls.ANEW, "new")):
        for target in targets:
            own = verdict.of(samples, section, target)
            if own:
                beside = verdict.paired(samples, section, (target, "nginx"), verdict.cost_ratio)
                latency = _pooled_ms(own, lambda s: s.load.latency, 0.5, 0.99)
                rate = _figure(own, lambda s: s.load.rps, 0)
                rows.append([target, connections, *_cpu(own), _range(beside, 2), rate, latency])
    head = ("target", "connections", "µs CPU/request", "busiest process", "× nginx CPU", "requests/s", "p50 / p99 ms")
    return _table(head, rows)


def _tls_streams(results: Sequence[MemoryResult]) -> str:
    def kb(value: float | None) -> str:
        return "–" if value is None else f"{value:.1f}"

    def mb(result: MemoryResult, when: str) -> str:
        moment = result.at(when)
        return f"{moment.rss_kb / 1024:.1f}" if moment else "–"

    streams = ("before streams", "streams open", "streams closed")
    rows = [[r.target, f"{r.streams:,}", kb(r.kb_per_stream), *(mb(r, when) for when in streams)] for r in results]
    opened = _table(("target", "open idle streams", "KB each", *(f"MB, {when}" for when in streams)), rows)
    rows = [[r.target, *(mb(r, when) for when in (SMALL_CARRIED, LARGE_CARRIED))] for r in results]
    kept = _table(("target", "MB, after answers of 1 KB", "MB, after answers of 256 KB"), rows)
    said = (
        f"The worker's memory with {LARGE_CONNECTIONS:,} idle connections of callers, and those to the provider: after "
        "they have carried small answers, and then large ones."
    )
    return f"{opened}\n\n{said}\n\n{kept}" if opened else ""


def _memory(results: Sequence[MemoryResult]) -> str:
    if not results:
        return ""
    parts = [
        "## Memory and descriptors",
        "The worker: the process that is called so, else the one of the target with the most memory.",
    ]
    for result in results:
        rows = [[m.when, f"{m.rss_kb / 1024:.1f}", f"{m.descriptors:,}"] for m in result.moments]
        parts.append(f"### {result.target}")
        parts.append(_table(("moment", "RSS MB", "descriptors"), rows))
        if result.kb_per_stream is not None:
            parts.append(f"{result.streams:,} streams held open: {result.kb_per_stream:.1f} KB each.")
        if result.errors:
            parts.append(f"Errors: {result.errors}.")
    return "\n\n".join(parts)


def _start_lead() -> str:
    return (
        "From the execution of gateway serve with two workers, all on core 0, to the first 200 of /readyz, and to "
        "the end of a first answer. Fresh: state_dir is empty. Used: journal and snapshot are there, of "
        f"{USED_REQUESTS:,} requests and of each start before. The program's files are in the page cache. Beside: when "
        "the first worker was forked, before which lie the interpreter, imports, configuration and snapshot; and CPU "
        "time until the answer."
    )


def _start_table(starts: Sequence[Start]) -> str:
    def row(state: str, own: Sequence[Start]) -> list[str]:
        times = [Range.of(values) for values in zip(*((s.ready_s, s.answered_s, s.forked_s) for s in own), strict=True)]
        cpu = [Range.of(one.cpu_us[kind] / 1e6 for one in own) for kind in PROCESSES]
        return [state, *(_range(value, 2) for value in (*times, *cpu))]

    by_state = ((state, [one for one in starts if one.state == state]) for state in STATES)
    head = (
        "state_dir",
        "ready s",
        "first answer s",
        "first worker forked s",
        "CPU s: supervisor",
        "workers",
        "control",
    )
    return _table(head, [row(state, own) for state, own in by_state if own])


def _workers_lead(result: Result) -> str:
    return (
        f"As plain requests, {result.settings.connections} connections, closed loop. One worker is on core 0. Two are "
        "wherever there is room: on a machine of two cores they share the second one with callers and upstream, which "
        "limits their rate. CPU a request is of all processes of the gateway, in the same repeat."
    )


def _workers_table(samples: Sequence[Sample], subject: str) -> str:
    def row(number: int, own: Sequence[Sample]) -> list[str]:
        one = verdict.of_workers(samples, subject, 1)
        rate, cost = (verdict.beside(own, one, ratio) for ratio in (verdict.rate_ratio, verdict.cost_ratio))
        latency = _pooled_ms(own, lambda s: s.load.latency, 0.5, 0.99)
        return [
            str(number),
            _figure(own, lambda s: s.load.rps, 0),
            _range(rate, 2),
            *_cpu(own),
            _range(cost, 2),
            latency,
        ]

    by_number = ((number, verdict.of_workers(samples, subject, number)) for number in workers.WORKERS)
    head = ("workers", "requests/s", "× one", "µs CPU/request", "busiest process", "× one's CPU", "p50 / p99 ms")
    return _table(head, [row(number, own) for number, own in by_number if own])


def _conditions(result: Result) -> str:
    settings = result.settings
    rows = [[name, value] for name, value in result.conditions.items()]
    method = (
        f"Target on core 0, upstream and load generator on core 1. {settings.repeats} repeats of "
        f"{settings.seconds:g} s after {settings.warmup:g} s of warm-up, targets in turn inside each repeat; medians "
        "with the least and the greatest. Quantiles without a range are of all repeats together, to 1.6 %. The method "
        "is in bench/README.md."
    )
    return f"## Conditions\n\n{method}\n\n{_table(('what', 'value'), rows)}"
