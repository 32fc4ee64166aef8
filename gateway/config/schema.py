"""The config as typed values: every setting, its type, its bounds and its default, and nothing else.

The names are a contract with operators and are documented one by one in docs/configuration.md (a test compares). All
structs are frozen: a config is replaced, never edited. Values are ready for use: sizes are bytes, paths absolute,
networks parsed, secrets resolved and hidden.

Invariants: a setting that exists here is enforced. One that is only planned stands in `unenforced.py` and is refused
at load, because a limit that is written and silently not applied is worse than none. Left out: how text becomes these
values (`load.py`, `walk.py`) and what must hold between them (`crosscheck.py`).
"""

import os
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, structs

from gateway.config.limits import SHORT_FORMS, Allowance, CountOf, InFlight, Limits, Prices, Usd
from gateway.config.secrets import Secret
from gateway.units import KIB, MIB

Port = Annotated[int, Meta(ge=0, le=65535)]
"""A TCP port; 0 lets the system choose a free one."""
Seconds = Annotated[float, Meta(ge=0.001, le=7 * 86_400)]
Pause = Annotated[float, Meta(ge=0, le=7 * 86_400)]
"""Seconds, of which none is a sensible number."""
Size = Annotated[int, Meta(ge=1, le=2**50, extra={"mark": "size"})]
"""Bytes; written as an integer or with a unit: 32MiB, 50GB, 512 KiB."""
File = Annotated[str, Meta(extra={"mark": "path"})]
"""A path, made absolute at load: relative to the config file, or to the working directory when given by `--set`."""
Names = Annotated[tuple[str, ...], Meta(extra={"mark": "one_or_many"})]
"""A list of names; a single one needs no brackets."""
Name = Annotated[str, Meta(min_length=1, max_length=256)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Network = IPv4Network | IPv6Network
Durability = Literal["written", "synced"]
"""When a decision counts as recorded: once the kernel has it, or once the disk has it."""
OnFailure = Literal["closed", "open"]
"""Whether requests are refused or served unrecorded while the journal cannot be written."""


class SniCertificate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A certificate shown to callers who ask for one of `names` (`*.example.org` covers one label)."""

    names: Names
    cert: File
    key: File


class Tls(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """TLS of the data listener; `client_ca` set means that callers must show a certificate it signed."""

    cert: File
    key: File
    client_ca: File = ""
    sni: tuple[SniCertificate, ...] = ()
    min_version: Literal["1.2", "1.3"] = "1.2"


class Listen(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The data port: where callers connect, and what one connection may take."""

    host: Name = "127.0.0.1"
    port: Port = 8080
    workers: Annotated[int, Meta(ge=0, le=256)] = 0  # 0: one per core
    backlog: Annotated[int, Meta(ge=1, le=65535)] = 4096
    proxy_protocol: bool = False  # then required from trusted_proxies, refused from others
    tls: Tls | None = None
    keepalive_s: Seconds = 75
    header_timeout_s: Seconds = 10
    body_timeout_s: Seconds = 60  # without progress, not in total
    max_header_bytes: Annotated[int, Meta(ge=1024, le=MIB, extra={"mark": "size"})] = 32 * KIB
    max_connections: Count = 20_000  # per worker

    @property
    def worker_count(self) -> int:
        """Workers to start: as configured, or one per core this process may use (a container has fewer)."""
        return self.workers or len(os.sched_getaffinity(0))


class Admin(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The admin port; it is never served without a token."""

    token: Secret
    host: Name = "127.0.0.1"
    port: Port = 8081


class Timeouts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Time limits of an exchange's upstream side; None inherits: route, then model, then defaults, then built in."""

    connect_s: Seconds | None = None
    first_byte_s: Seconds | None = None
    first_content_s: Seconds | None = None
    idle_s: Seconds | None = None
    total_s: Seconds | None = None

    def over(self, other: "Timeouts | None") -> "Timeouts":
        """These limits, and the other's where this says nothing."""
        if other is None:
            return self
        return Timeouts(
            connect_s=other.connect_s if self.connect_s is None else self.connect_s,
            first_byte_s=other.first_byte_s if self.first_byte_s is None else self.first_byte_s,
            first_content_s=other.first_content_s if self.first_content_s is None else self.first_content_s,
            idle_s=other.idle_s if self.idle_s is None else self.idle_s,
            total_s=other.total_s if self.total_s is None else self.total_s,
        )


class Provider(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An account at a provider: where it is, how we prove ourselves to it, and the connections we keep."""

    kind: Name
    base_url: str = ""  # "": the kind's own public address
    allow_plain_http: bool = False  # http:// beyond loopback: keys and prompts travel readable
    api_key: Secret | None = None
    credential: Literal["own", "caller"] = "own"
    usage_flag: Literal["auto", "never"] = "auto"
    dedicated_to: Names = ()
    headers: dict[str, str] = {}
    ca_file: File = ""
    client_cert: File = ""
    client_key: File = ""
    proxy: str = ""  # "": from HTTPS_PROXY and NO_PROXY; "none": never; else a URL
    max_connections: Count = 4096  # per worker
    max_idle: Annotated[int, Meta(ge=0, le=1_000_000)] = 512  # per worker
    idle_s: Seconds = 60
    max_age_s: Seconds = 600
    resolve_s: Seconds = 30


class Target(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One place that can serve a model; `model` "*" is what the pattern's star matched."""

    provider: Name
    model: Name
    weight: Annotated[int, Meta(ge=0, le=1_000_000)] = 1
    defaults: dict[str, object] = {}
    headers: dict[str, str] = {}


class Model(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model name (or a pattern ending in one star) stands for."""

    targets: Annotated[tuple[Target, ...], Meta(min_length=1)]
    fallbacks: tuple[str, ...] = ()
    timeouts: Timeouts | None = None
    tokenizer: File = ""  # counts a prompt's tokens exactly; without one they are estimated from its bytes
    output_prior: CountOf = 1024  # tokens an answer is expected to have, until enough have been seen
    context_tokens: CountOf | None = None  # of prompt and answer together, at most; None: as published
    price: Prices | None = None  # None: as published


class Key(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A caller's key: its secret (or `sha256:` digest), whom it speaks for, and the models it may use."""

    id: Name
    secret: Secret
    org: str = ""
    team: str = ""
    user: str = ""
    role: str = ""
    labels: dict[str, str] = {}
    data_class: str = ""  # of what it sends, unless the route knows better
    models: Names = ("*",)
    disabled: bool = False
    expires_at: datetime | None = None  # with its offset
    rpm: CountOf | None = None
    tpm: CountOf | None = None
    max_in_flight: InFlight | None = None
    usd_per_month: Usd | None = None

    @property
    def allowance(self) -> Allowance | None:
        """Its short forms of limits, None when it has none."""
        said = Allowance(**{name: getattr(self, name) for name in SHORT_FORMS})
        return said if said.limits else None


class Match(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a request must be to take a route; what is not said matches anything. Labels must all be equal."""

    path: str = ""  # exact, or a prefix ending in *
    model: str = ""  # exact, or a prefix ending in *
    labels: dict[str, str] = {}


class RouteSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a request is served; None inherits: route, then defaults, then built in."""

    timeouts: Timeouts | None = None
    relay: Literal["tap"] | None = None
    max_attempts: Annotated[int, Meta(ge=1, le=32)] | None = None
    hold_s: Pause | None = None
    keepalive_comment_s: Seconds | None = None
    durability: Durability | None = None
    on_failure: OnFailure | None = None


class Route(RouteSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A named set of settings and the requests it is for; the first that matches wins."""

    name: Name
    match: Match = Match()
    data_class: str = ""  # of all that takes it, in place of what keys declare


class Log(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is written to stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    requests: Literal["all", "errors", "none"] = "all"
    format: Literal["json", "text", "auto"] = "auto"  # auto: text on a terminal


class Anchor(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the journal's newest manifest is also shown, out of this node's reach: `audit anchor`, every `every_s`."""

    kind: Literal["file", "s3", "rfc3161"]
    every_s: Annotated[float, Meta(ge=1, le=7 * 86_400)] = 3600
    path: File = ""  # file, and where rfc3161 keeps its tokens: a directory
    url: str = ""  # rfc3161: the authority; s3: another endpoint than the region's own
    bucket: str = ""  # s3
    prefix: str = ""  # s3: what object names begin with
    region: str = ""  # s3
    access_key: Secret | None = None  # s3; none: what the environment has
    secret_key: Secret | None = None  # s3
    keep_days: Annotated[int, Meta(ge=1, le=36_500)] = 400  # s3: how long the object lock holds
    ca_file: File = ""  # rfc3161: the certificates its tokens are checked against


class Journal(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept of every exchange: when it counts as written, what if it cannot be, and for how long."""

    enabled: bool = True
    durability: Durability = "written"
    on_failure: OnFailure = "closed"
    max_bytes: Size = 50_000_000_000
    keep_days: Annotated[int, Meta(ge=1, le=36_500)] = 400
    segment_bytes: Annotated[int, Meta(ge=64 * KIB, le=16 * 1024 * MIB, extra={"mark": "size"})] = 64 * MIB
    segment_s: Annotated[float, Meta(ge=1, le=31 * 86_400)] = 86_400
    refusals_per_s: Annotated[int, Meta(ge=0, le=1_000_000)] = 10  # of one reason, told one by one; the rest counted
    anchors: tuple[Anchor, ...] = ()


class Export(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reader that hands every record on, at least once, with an id to tell repeats by."""

    name: Name
    kind: Literal["file", "stdout"]
    path: File = ""  # file
    personal: Literal["sealed", "opened", "omitted"] = "sealed"
    rotate_bytes: Size = 256 * MIB  # file


class Webhook(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is sent events, signed with `secret`."""

    name: Name
    url: Secret  # it may hold a token
    secret: Secret
    events: tuple[Literal["budget.crossed"], ...] = ()  # none: all
    allow_private: bool = False
    timeout_s: Annotated[float, Meta(ge=0.1, le=60)] = 10


class Database(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where control keeps what it has read from the journal; no `url`: SQLite in state_dir."""

    url: Secret | None = None  # postgresql://user:password@host/name


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything an operator can say about one node. `admin` None: no admin port."""

    listen: Listen = Listen()
    admin: Admin | None = None
    node: str = ""
    region: str = ""
    state_dir: File = "./state"
    drain_s: Pause = 30
    drain_delay_s: Pause = 5
    stuck_s: Annotated[float, Meta(ge=0.1, le=3600)] = 10
    trusted_proxies: tuple[Network, ...] = ()
    max_body_bytes: Size = 32 * MIB
    spool_bytes: Size = 25 * MIB  # of one body
    spool_total_bytes: Size = 256 * MIB  # of one worker
    inline_bytes: Size = 256 * KIB  # CPU work on bodies above it leaves the loop
    providers: dict[str, Provider] = {}
    models: dict[str, Model] = {}
    keys: tuple[Key, ...] = ()
    teams: dict[str, Allowance] = {}
    limits: Limits = Limits()
    routes: tuple[Route, ...] = ()
    defaults: RouteSettings = RouteSettings()
    log: Log = Log()
    journal: Journal = Journal()
    exports: tuple[Export, ...] = ()
    webhooks: tuple[Webhook, ...] = ()
    database: Database = Database()

    @property
    def route_defaults(self) -> RouteSettings:
        """`defaults`, and what `journal` says for all routes where `defaults` says nothing."""
        said, journal = self.defaults, self.journal
        return structs.replace(
            said,
            durability=said.durability or journal.durability,
            on_failure=said.on_failure or journal.on_failure,
        )


BUILT_IN: Final = RouteSettings(
    timeouts=Timeouts(connect_s=2, first_byte_s=60, first_content_s=600, idle_s=300, total_s=1800),
    relay="tap",
    max_attempts=3,
    hold_s=10,
    keepalive_comment_s=15,
    durability="written",
    on_failure="closed",
)
"""What applies where neither route, model nor `defaults` says anything; no field of it is None."""
