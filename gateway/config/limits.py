"""What an operator says about limits: rules, their short forms on keys and teams, prices, and where usage is kept.

A rule is one resource (requests, tokens, input tokens, output tokens, USD, requests in flight), counted apart for each
value of its scopes (`per`), for the requests it is for (`match`). A rate refills continuously; a budget is counted
within a window of the calendar. The short forms are rules too, with names of their own (`SHORT_FORMS`).

Left out: what must hold between these values (`limitcheck.py`), and what a rule comes to for a request, which is the
limiter's.
"""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from gateway.config.secrets import Secret

EMBEDDED: Final = "embedded"
MAX_COUNT: Final = 10**9  # requests or tokens, of a limit or a period: thousandths of it are still exact
MAX_USD: Final = 1_000_000
MAX_USD_PER_MTOK: Final = 100_000

CountOf = Annotated[int, Meta(ge=1, le=MAX_COUNT)]
Usd = Annotated[float, Meta(ge=0.000001, le=MAX_USD, extra={"mark": "usd"})]
"""US dollars; counted in millionths."""
Price = Annotated[float, Meta(ge=0, le=MAX_USD_PER_MTOK, extra={"mark": "usd"})]
"""US dollars for a million tokens; none is a price, too."""
Capacity = Annotated[float, Meta(ge=0.000001, le=MAX_COUNT, extra={"mark": "amount"})]
"""In the unit of the rule's resource."""
InFlight = Annotated[int, Meta(ge=1, le=1_000_000)]
Percent = Annotated[int, Meta(ge=1, le=100)]
File = Annotated[str, Meta(extra={"mark": "path"})]
Scope = Annotated[str, Meta(min_length=1, max_length=256)]
Every = Literal["second", "minute", "hour", "day", "week", "month"]
OnStoreFailure = Literal["closed", "open", "share"]
"""While the store is away: refuse, admit uncounted, or count this node's part here."""
OnTableFull = Literal["other", "refuse"]

SCOPES: Final = ("org", "team", "key", "user", "role", "end_user", "model", "provider", "route", "data_class")
LABEL: Final = "label:"
BUDGET_SPANS: Final = ("hour", "day", "week", "month")
RESOURCES: Final = ("requests", "tokens", "input_tokens", "output_tokens", "usd", "in_flight")


class Prices(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a million tokens of a model cost in USD, in place of the published price.

    What is not said costs as what it is part of: cached, written and spoken input as input, reasoning and speech as
    output.
    """

    input: Price
    output: Price
    cache_read: Price | None = None
    cache_write: Price | None = None
    reasoning: Price | None = None
    audio_input: Price | None = None
    audio_output: Price | None = None


class Allowance(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The short forms of limits: what one team may use. None is no limit."""

    rpm: CountOf | None = None
    tpm: CountOf | None = None
    max_in_flight: InFlight | None = None
    usd_per_month: Usd | None = None

    @property
    def limits(self) -> tuple[str, ...]:
        """The names of the limits it sets."""
        return tuple(name for name in self.__struct_fields__ if getattr(self, name) is not None)


SHORT_FORMS: Final = Allowance.__struct_fields__


class RuleMatch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which requests a rule is for: all that is said must fit; each an exact name, or a prefix ending in `*`."""

    org: str = ""
    team: str = ""
    key: str = ""
    user: str = ""
    role: str = ""
    model: str = ""  # the name the caller asks for
    provider: str = ""
    route: str = ""
    data_class: str = ""
    label: dict[str, str] = {}


class Rule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One limit; exactly one resource is given. `capacity` None: one period's amount."""

    name: Scope
    per: tuple[Scope, ...] = ()
    requests: CountOf | None = None
    tokens: CountOf | None = None
    input_tokens: CountOf | None = None
    output_tokens: CountOf | None = None
    usd: Usd | None = None
    in_flight: InFlight | None = None
    every: Every | None = None  # not for in_flight, which has no time
    capacity: Capacity | None = None
    budget: bool | None = None  # None: true for usd
    alerts: tuple[Percent, ...] = (70,)  # of a budget
    time_zone: str = ""  # of a budget; "": that of `limits`
    shadow: bool = False
    on_store_failure: OnStoreFailure | None = None  # None: that of `limits`
    match: RuleMatch = RuleMatch()

    @property
    def resources(self) -> tuple[str, ...]:
        """The resources it names; a sound rule names one."""
        return tuple(name for name in RESOURCES if getattr(self, name) is not None)

    @property
    def is_budget(self) -> bool:
        """Whether it counts within windows of the calendar."""
        return self.usd is not None if self.budget is None else self.budget


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All rules, and where and how usage is counted. `store` None: in this node's shared memory, as `embedded`."""

    store: Secret | None = None
    ca_file: File = ""
    client_cert: File = ""
    client_key: File = ""
    domain: Scope = "main"
    secret: Secret | None = None  # what names of people are digested with; the same on all nodes of a store
    nodes: Annotated[int, Meta(ge=1, le=10_000)] = 1  # that share the store: `share` is this part of a limit
    slices: bool = False  # admit from leased parts of hot buckets, without asking the store
    on_store_failure: OnStoreFailure = "share"
    on_table_full: OnTableFull = "other"
    max_buckets: Annotated[int, Meta(ge=16, le=2**22)] = 100_000
    max_holds: Annotated[int, Meta(ge=16, le=2**20)] = 50_000
    max_end_users: Annotated[int, Meta(ge=1, le=2**22)] = 10_000
    unpriced: Literal["refuse", "zero"] = "refuse"
    time_zone: str = "UTC"
    rules: tuple[Rule, ...] = ()

    @property
    def store_url(self) -> Secret | None:
        """The address of the store, None when usage is counted here."""
        return None if self.store is None or self.store.reveal() == EMBEDDED else self.store
