"""Mix × coefficients → what it takes. Pure arithmetic; every assumption is a field with a name.

Open exchanges follow from how long they last (Little: arrivals a second × seconds). Workers are counted at
`target_load` of a core each, half by default: that is where the latencies were measured, and what lets a node die.
What a store of limits is asked follows from the requests: two calls each, and one for up to MAX_RENEWALS leases of what
is open for longer.
"""

import math
from dataclasses import dataclass
from typing import Final

from bench.capacity.coefficients import Coefficients
from gateway.limiter.limiter import LEASE_MS
from gateway.limiter.scripts import MAX_RENEWALS

US: Final = 1e6
DAY_S: Final = 86_400
SPARE_DESCRIPTORS: Final = 400
RENEW_EVERY_S: Final = LEASE_MS / 3_000


@dataclass(frozen=True)
class Mix:
    """What callers ask: a token is a chunk, as models send them."""

    rps: float
    stream_share: float = 0.6
    prompt_kb: float = 8.0
    output_tokens: int = 400
    ttft_ms: float = 500.0
    token_ms: float = 20.0

    @property
    def streams_per_s(self) -> float:
        """Streams that begin each second."""
        return self.rps * self.stream_share

    @property
    def plain_per_s(self) -> float:
        """Requests that are answered whole."""
        return self.rps - self.streams_per_s

    @property
    def exchange_s(self) -> float:
        """How long an exchange is open: a whole answer takes as long to write as a streamed one."""
        return (self.ttft_ms + self.output_tokens * self.token_ms) / 1e3


@dataclass(frozen=True)
class Nodes:
    """What nodes are like, and how full they may be."""

    cores: int = 8
    spare: int = 1
    target_load: float = 0.5


@dataclass(frozen=True)
class Plan:
    """What a mix takes."""

    cores: float  # busy, of the kind that was measured
    workers: int
    nodes: int  # the spare ones among them
    workers_per_node: int
    open_streams: int
    open_requests: int
    memory_mb: float  # of a node, with its share of what is open when the spare ones are gone
    descriptors: int  # of a worker
    journal_mb_per_s: float
    journal_gb_per_day: float
    store_calls_per_s: float  # where nodes share their limits: reserve and settle of each request, and leases renewed
    store_connections: int


def cpu_us_per_s(mix: Mix, c: Coefficients) -> float:
    """CPU time of the gateway for one second of the mix."""
    prompts = mix.rps * mix.prompt_kb * c.prompt_kb_us
    plain = mix.plain_per_s * c.request_us
    return plain + prompts + mix.streams_per_s * (c.stream_us + mix.output_tokens * c.chunk_us)


def plan(mix: Mix, c: Coefficients, nodes: Nodes) -> Plan:
    """The whole plan; raises nothing for a mix above zero."""
    cores = cpu_us_per_s(mix, c) / US
    workers = max(1, math.ceil(cores / nodes.target_load))
    serving = math.ceil(workers / nodes.cores)
    per_node = math.ceil(workers / serving)
    streams, requests = (math.ceil(each * mix.exchange_s) for each in (mix.streams_per_s, mix.plain_per_s))
    open_kb = streams * c.stream_kb + requests * (c.connection_kb + mix.prompt_kb)
    journal = mix.rps * c.journal_bytes
    renewing = (streams + requests if mix.exchange_s > RENEW_EVERY_S else 0) / RENEW_EVERY_S
    return Plan(
        cores=cores,
        workers=workers,
        nodes=serving + nodes.spare,
        workers_per_node=per_node,
        open_streams=streams,
        open_requests=requests,
        memory_mb=c.node_mb + per_node * c.worker_mb + open_kb / serving / 1024,
        descriptors=2 * math.ceil((streams + requests) / workers) + SPARE_DESCRIPTORS,
        journal_mb_per_s=journal / 1e6,
        journal_gb_per_day=journal * DAY_S / 1e9,
        store_calls_per_s=2 * mix.rps + max(renewing / MAX_RENEWALS, workers / RENEW_EVERY_S if renewing else 0),
        store_connections=workers + serving + nodes.spare,
    )


def markdown(mix: Mix, c: Coefficients, nodes: Nodes) -> str:
    """The plan, and what it was made from."""
    p = plan(mix, c, nodes)
    rows = [
        ("CPU, cores busy", f"{p.cores:,.2f}"),
        (f"workers, each at {nodes.target_load:.0%} of a core", f"{p.workers:,}"),
        (
            f"nodes of {nodes.cores} cores, {nodes.spare} of them spare",
            f"{p.nodes:,} with {p.workers_per_node} workers each",
        ),
        ("streams open at once", f"{p.open_streams:,}"),
        ("plain requests open at once", f"{p.open_requests:,}"),
        ("memory of a node, MB", f"{p.memory_mb:,.0f}"),
        ("descriptors of a worker (LimitNOFILE)", f"{p.descriptors:,}"),
        ("journal, MB/s on all nodes together", f"{p.journal_mb_per_s:,.2f}"),
        ("journal, GB a day on all nodes together", f"{p.journal_gb_per_day:,.0f}"),
        ("calls of the limit store a second, if nodes share one", f"{p.store_calls_per_s:,.0f}"),
        ("connections to it, one a worker and one a node", f"{p.store_connections:,}"),
        ("p99 added, measured at half load, ms", f"{c.p99_added_ms:.2f}"),
    ]
    used = [
        ("a plain request, µs", f"{c.request_us:.1f}"),
        ("a KB of prompt, µs", f"{c.prompt_kb_us:.2f}"),
        ("a stream, µs", f"{c.stream_us:.1f}"),
        ("a chunk, µs", f"{c.chunk_us:.2f}"),
        ("an idle worker, MB", f"{c.worker_mb:.1f}"),
        ("the node's other processes, MB", f"{c.node_mb:.1f}"),
        ("a connection, KB", f"{c.connection_kb:.1f}"),
        ("an open stream, KB", f"{c.stream_kb:.1f}"),
        ("journal, bytes an exchange", f"{c.journal_bytes:.0f}"),
    ]
    asked = (
        f"{mix.rps:,g} requests/s, {mix.stream_share:.0%} streamed, prompts of {mix.prompt_kb:g} KB, "
        f"{mix.output_tokens} tokens of {mix.token_ms:g} ms after {mix.ttft_ms:g} ms"
    )
    return (
        f"{asked}\n\n{_table('it takes', rows)}\n\n"
        f"Measured {c.date} on {c.machine}, gateway {c.gateway}:\n\n{_table('coefficient', used)}\n\n"
        "Not in it: TLS, policies and inspection, disk for more than one copy of the journal."
    )


def _table(head: str, rows: list[tuple[str, str]]) -> str:
    return "\n".join([f"| {head} | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])
