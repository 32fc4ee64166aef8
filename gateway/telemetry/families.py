"""What the gateway counts: every metric family, as data. docs/metrics.md has a row for each, and a test compares.

Labels take their values from the config, from this code, or from HTTP's status codes; never from a caller. A request
whose model no entry answers to counts under `unknown`; a wildcard entry counts under its pattern. What limits count is
labelled by the rule, never by the bucket: a rule has a bucket for each key or caller, and there is no end to those.
"""

from typing import Final

from gateway.telemetry.directory import Family, Kind
from gateway.telemetry.metrics import DROPPED

UNKNOWN: Final = "unknown"  # label value of a route, model, surface, target or rule the config does not name

_MS: Final = 1_000
_S: Final = 1_000_000

# Our own time: the budget is tens of microseconds, the alarm a millisecond.
OVERHEAD_BOUNDS_US: Final = (
    *(20, 50, 100, 200, 300, 500),
    *(1 * _MS, 2 * _MS, 5 * _MS, 10 * _MS, 25 * _MS, 100 * _MS),
    1 * _S,
)
# Models think for milliseconds when simulated and for minutes when they reason.
FIRST_TOKEN_BOUNDS_US: Final = (
    *(5 * _MS, 10 * _MS, 25 * _MS, 50 * _MS, 100 * _MS, 250 * _MS, 500 * _MS),
    *(1 * _S, 2 * _S, 5 * _S, 10 * _S, 30 * _S, 60 * _S, 180 * _S, 600 * _S),
)
REQUEST_BOUNDS_US: Final = (
    *(1 * _MS, 5 * _MS, 25 * _MS, 100 * _MS, 250 * _MS, 500 * _MS),
    *(1 * _S, 2 * _S, 5 * _S, 10 * _S, 30 * _S, 60 * _S, 300 * _S, 1_800 * _S),
)

REQUESTS: Final = Family(
    "gateway_requests_total",
    Kind.COUNTER,
    "Exchanges that ended, by the status the caller was sent; code 0 when the caller left before one.",
    ("route", "model", "surface", "code"),
)
REQUEST_SECONDS: Final = Family(
    "gateway_request_seconds",
    Kind.HISTOGRAM,
    "Whole time of an exchange, from its first byte in to its last byte out.",
    ("model",),
    REQUEST_BOUNDS_US,
)
OVERHEAD: Final = Family(
    "gateway_overhead_seconds",
    Kind.HISTOGRAM,
    "Part of an exchange the gateway itself took: its whole time less the time spent waiting for others.",
    ("route",),
    OVERHEAD_BOUNDS_US,
)
FIRST_TOKEN: Final = Family(
    "gateway_time_to_first_token_seconds",
    Kind.HISTOGRAM,
    "From the last byte of the request to the first content of the answer.",
    ("model",),
    FIRST_TOKEN_BOUNDS_US,
)
TOKENS: Final = Family(
    "gateway_tokens_total",
    Kind.COUNTER,
    "Model tokens used; input includes cached tokens, output includes reasoning.",
    ("model", "direction"),
)
COST: Final = Family(
    "gateway_cost_microusd_total",
    Kind.COUNTER,
    "What exchanges cost at the prices in force, in millionths of a US dollar; nothing for a model without a price.",
    ("model",),
)
ATTEMPTS: Final = Family(
    "gateway_attempts_total",
    Kind.COUNTER,
    "Tries at a target, by what came of them: ok, or the code of the error that ended the try.",
    ("target", "cause"),
)
TRUNCATED: Final = Family(
    "gateway_streams_truncated_total",
    Kind.COUNTER,
    "Answers that broke off at the provider after content had gone out.",
    ("model",),
)
ABANDONED: Final = Family(
    "gateway_abandoned_total", Kind.COUNTER, "Exchanges whose caller left before the end.", ("model",)
)
REFUSALS: Final = Family(
    "gateway_refusals_total",
    Kind.COUNTER,
    "Requests the gateway answered itself with an error, before any attempt, by the error's code.",
    ("reason",),
)
LIMIT_REFUSALS: Final = Family(
    "gateway_limit_refusals_total", Kind.COUNTER, "Requests refused by a limit, by its rule.", ("rule",)
)
LIMIT_SHADOWED: Final = Family(
    "gateway_limit_shadowed_total",
    Kind.COUNTER,
    "Requests that a shadow limit would have refused, by its rule.",
    ("rule",),
)
LIMITS_DEGRADED: Final = Family(
    "gateway_limits_degraded_total",
    Kind.COUNTER,
    "Requests admitted while usage could not be counted where the config says: uncounted, or on this node alone.",
)
LIMITS_UNAVAILABLE: Final = Family(
    "gateway_limits_unavailable_total", Kind.COUNTER, "Requests refused because usage could not be counted."
)
LIMITS_UNDELIVERED: Final = Family(
    "gateway_limits_undelivered_total",
    Kind.COUNTER,
    "Settlements that did not arrive at the first try; they are repeated until they do, or the limit table is lost.",
)
LIMIT_HOLDS: Final = Family("gateway_limit_holds", Kind.GAUGE, "Reservations of requests that are under way.")
LIMIT_OWED: Final = Family(
    "gateway_limit_owed", Kind.GAUGE, "Settlements that wait for the store of limits, or the node's limit table."
)
LIMIT_STORE_UP: Final = Family(
    "gateway_limit_store_up",
    Kind.GAUGE,
    "1 while this worker can count usage where the config says: always in shared memory, in a store while it answers.",
    ("slot",),
)
LIMIT_STORE_OUTAGES: Final = Family(
    "gateway_limit_store_outages_total", Kind.COUNTER, "Times that a worker stopped asking the store of limits."
)
LIMIT_STORE_CALLS: Final = Family(
    "gateway_limit_store_calls_total",
    Kind.COUNTER,
    "Calls to the store of limits: answered, late, refused by it, or unasked, because it was away or too many waited.",
    ("result",),
)
LIMIT_SLICES: Final = Family(
    "gateway_limit_slices_total",
    Kind.COUNTER,
    "Slices of limits: requests admitted from them, or that found too little there (dry), exchanges with the store.",
    ("event",),
)
LIMIT_STORE_RELOADS: Final = Family(
    "gateway_limit_store_reloads_total", Kind.COUNTER, "Scripts that the store of limits had lost and was given again."
)
LIMIT_STORE_DIALS: Final = Family(
    "gateway_limit_store_dials_total", Kind.COUNTER, "Connections to the store of limits that were tried."
)
LIMIT_STORE_LOST: Final = Family(
    "gateway_limit_store_lost_total", Kind.COUNTER, "Connections to the store of limits that broke off."
)
LIMITS_READY: Final = Family(
    "gateway_limits_ready", Kind.GAUGE, "1 when what was used before this start is where limits are counted."
)
LIMITS_GIVEN_BACK: Final = Family(
    "gateway_limits_given_back_total",
    Kind.COUNTER,
    "Times that what was used was given back, from the journal, to a memory of limits that had lost it.",
)
LIMITS_REPEATED: Final = Family(
    "gateway_limits_repeated_total",
    Kind.COUNTER,
    "Settlements told again from the journal, because it is not known whether the store of limits has them.",
)
LIMITS_CORRECTED: Final = Family(
    "gateway_limits_corrected_total",
    Kind.COUNTER,
    "Reservations settled from the journal, because their worker did not live to do it.",
)
BUDGET_CROSSINGS: Final = Family(
    "gateway_budget_crossings_total", Kind.COUNTER, "Thresholds of budgets that were passed, by the rule.", ("rule",)
)
WEBHOOKS_SENT: Final = Family(
    "gateway_webhooks_total",
    Kind.COUNTER,
    "Events for webhooks: sent, failed tries, and given up after too many of them or too many that waited.",
    ("webhook", "result"),
)
OPEN_STREAMS: Final = Family("gateway_open_streams", Kind.GAUGE, "Exchanges in flight whose answer is a stream.")
CONNECTIONS: Final = Family("gateway_connections", Kind.GAUGE, "Connections of callers that are open.")
UPSTREAM_CONNECTIONS: Final = Family(
    "gateway_upstream_connections",
    Kind.GAUGE,
    "Connections to providers that are open: busy with an exchange, or idle.",
    ("provider", "state"),
)
WORKER_RSS: Final = Family(
    "gateway_worker_rss_bytes", Kind.GAUGE, "Resident memory of each process, shared pages included.", ("slot",)
)
LOG_LINES_DROPPED: Final = Family(
    "gateway_log_lines_dropped_total", Kind.COUNTER, "Log lines given up because stderr was not read fast enough."
)
WORKER_STARTS: Final = Family(
    "gateway_worker_starts_total",
    Kind.COUNTER,
    "Worker processes started: at the start, in place of one that died or hung, for more workers, in an upgrade.",
)
RELOADS: Final = Family(
    "gateway_reloads_total", Kind.COUNTER, "Configurations offered by a reload: published, refused.", ("result",)
)
ADMIN_REFUSALS: Final = Family(
    "gateway_admin_refusals_total", Kind.COUNTER, "Requests to the admin port without its token."
)
JOURNAL_LINES: Final = Family("gateway_journal_lines_total", Kind.COUNTER, "Lines written to the journal.")
JOURNAL_BYTES: Final = Family("gateway_journal_bytes_total", Kind.COUNTER, "Bytes written to the journal.")
JOURNAL_LOST: Final = Family(
    "gateway_journal_lost_records_total",
    Kind.COUNTER,
    "Records that are in no journal: served unrecorded, or given up while it could not be written.",
)
JOURNAL_FAILURES: Final = Family(
    "gateway_journal_failures_total", Kind.COUNTER, "Writes and syncs of the journal that the disk refused."
)
JOURNAL_FAILING: Final = Family(
    "gateway_journal_failing", Kind.GAUGE, "1 while this process cannot write its chain of the journal.", ("slot",)
)
JOURNAL_SYNC_THREAD: Final = Family(
    "gateway_journal_sync_thread",
    Kind.GAUGE,
    "1 while a thread of this process makes the journal's syncs, because the kernel makes none by itself.",
    ("slot",),
)
JOURNAL_LAG: Final = Family(
    "gateway_journal_lag_records",
    Kind.GAUGE,
    "Signed records that a reader of the journal has not read yet.",
    ("reader",),
)
JOURNAL_POISON: Final = Family(
    "gateway_journal_poison_records_total", Kind.COUNTER, "Records a reader could not take and set aside.", ("reader",)
)
JOURNAL_MANIFESTS: Final = Family("gateway_journal_manifests_total", Kind.COUNTER, "Manifests signed.")
JOURNAL_SIGN_FAILURES: Final = Family(
    "gateway_journal_sign_failures_total", Kind.COUNTER, "Turns in which a manifest could not be signed or written."
)
JOURNAL_SIGNED_AGE: Final = Family(
    "gateway_journal_signed_age_ms", Kind.GAUGE, "Milliseconds since a manifest was last signed; -1 before the first."
)
JOURNAL_BROKEN: Final = Family(
    "gateway_journal_broken_chains", Kind.GAUGE, "Chains that do not verify and are signed no further."
)
JOURNAL_USED: Final = Family("gateway_journal_used_bytes", Kind.GAUGE, "What the journal takes up on the disk.")
JOURNAL_ALARM: Final = Family(
    "gateway_journal_alarm", Kind.GAUGE, "1 while the journal takes up more than 80 % of max_bytes."
)
ANCHOR_AGE: Final = Family(
    "gateway_journal_anchor_age_ms",
    Kind.GAUGE,
    "Milliseconds since the journal's head was last anchored; -1 before the first time.",
    ("anchor",),
)
WORKERS: Final = Family("gateway_workers", Kind.GAUGE, "Worker processes by state.", ("state",))
SNAPSHOT_GENERATION: Final = Family(
    "gateway_snapshot_generation", Kind.GAUGE, "Number of the snapshot of config and keys that is published."
)
BUILD_INFO: Final = Family(
    "gateway_build_info", Kind.GAUGE, "Always 1; the labels say what runs.", ("version", "python")
)
UP: Final = Family("gateway_up", Kind.GAUGE, "1 when the node serves: its workers are ready and it does not drain.")

FAMILIES: Final = (
    UP,
    BUILD_INFO,
    SNAPSHOT_GENERATION,
    REQUESTS,
    REQUEST_SECONDS,
    OVERHEAD,
    FIRST_TOKEN,
    TOKENS,
    COST,
    ATTEMPTS,
    TRUNCATED,
    ABANDONED,
    REFUSALS,
    LIMIT_REFUSALS,
    LIMIT_SHADOWED,
    LIMITS_DEGRADED,
    LIMITS_UNAVAILABLE,
    LIMITS_UNDELIVERED,
    LIMIT_HOLDS,
    LIMIT_OWED,
    LIMIT_STORE_UP,
    LIMIT_STORE_OUTAGES,
    LIMIT_STORE_CALLS,
    LIMIT_SLICES,
    LIMIT_STORE_RELOADS,
    LIMIT_STORE_DIALS,
    LIMIT_STORE_LOST,
    LIMITS_READY,
    LIMITS_GIVEN_BACK,
    LIMITS_REPEATED,
    LIMITS_CORRECTED,
    BUDGET_CROSSINGS,
    WEBHOOKS_SENT,
    OPEN_STREAMS,
    CONNECTIONS,
    UPSTREAM_CONNECTIONS,
    WORKERS,
    WORKER_RSS,
    WORKER_STARTS,
    RELOADS,
    ADMIN_REFUSALS,
    LOG_LINES_DROPPED,
    JOURNAL_LINES,
    JOURNAL_BYTES,
    JOURNAL_LOST,
    JOURNAL_FAILURES,
    JOURNAL_FAILING,
    JOURNAL_SYNC_THREAD,
    JOURNAL_LAG,
    JOURNAL_POISON,
    JOURNAL_MANIFESTS,
    JOURNAL_SIGN_FAILURES,
    JOURNAL_SIGNED_AGE,
    JOURNAL_BROKEN,
    JOURNAL_USED,
    JOURNAL_ALARM,
    ANCHOR_AGE,
    DROPPED,
)
