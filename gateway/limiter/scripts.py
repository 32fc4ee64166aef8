"""The scripts of `lua/` and how they are called: operations to bytes, answers to values.

Models nothing of its own: it is the wire form of `engine.py`. Every key a script touches is among its KEYS, whole, and
all keys of a domain carry one tag, so that they lie in one slot of a cluster and under one lock of Dragonfly. Amounts
are proved when a call is made, so a script never sees a number it cannot count with.

Invariants: the same operation has the same bytes, so a call may be sent again as it is; two bucket names never share a
key. What is long or hard to read in a name is encoded: other than visible ASCII by percent, and beyond MAX_NAME_BYTES
the rest by its hash. Left out: connections and time (`store.py`).
"""

import hashlib
import importlib.resources
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import quote

import msgspec

from gateway.limiter.engine import MAX_CHARGES, Amount, Renewal, Reserved, Settled, Slice, Standing
from gateway.limiter.hold import State
from gateway.limiter.resp import bulk, command
from gateway.limiter.spec import EXACT, MAX_AMOUNT, Kind, Spec, prove_amount, prove_lease

LAYOUT: Final = 1
KEEP_MS: Final = 86_400_000  # how long holds and marks of settled ones outlive their lease: the longest replay
MAX_NAME_BYTES: Final = 200
MAX_RENEWALS: Final = 100
NAMES: Final = ("reserve", "settle", "renew", "lease", "peek")

_VISIBLE: Final = "!\"#$&'()*+,-./:;<=>?@[\\]^_`|"  # what stands as it is in a key; ~ marks a hash
_LETTER: Final = {Kind.RATE: "r", Kind.WINDOW: "w", Kind.SLOTS: "s"}
_MAX_CACHED: Final = 65_536

# The values of the answers, which are JSON arrays in the order of the fields. Each raises ValueError for what is none.
reserved: Final = msgspec.json.Decoder(Reserved).decode
settled: Final = msgspec.json.Decoder(Settled).decode
renewed: Final = msgspec.json.Decoder(tuple[State, ...]).decode
leased: Final = msgspec.json.Decoder(Slice).decode
peeked: Final = msgspec.json.Decoder(tuple[Standing, ...]).decode


class Script:
    """One operation's script: what SCRIPT LOAD sends and EVALSHA names."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.sha = hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()
        self.load = command(b"SCRIPT", b"LOAD", text)
        self._heads: dict[tuple[int, int], bytes] = {}

    def head(self, keys: int, arguments: int) -> bytes:
        """The beginning of a call with so many KEYS and ARGV."""
        found = self._heads.get((keys, arguments))
        if found is None:
            found = b"*%d\r\n%b%b%b" % (3 + keys + arguments, bulk(b"EVALSHA"), bulk(self.sha), bulk(b"%d" % keys))
            self._heads[keys, arguments] = found
        return found


def load_scripts() -> dict[str, Script]:
    """All scripts by the name of their operation, each with the arithmetic of bucket.lua in front."""
    folder = importlib.resources.files("gateway") / "lua"
    arithmetic = (folder / "bucket.lua").read_bytes()
    return {name: Script(arithmetic + b"\n" + (folder / f"{name}.lua").read_bytes()) for name in NAMES}


class _Known:
    """A bucket seen before: its key as an argument, and its spec as text; the last amount as a whole argument."""

    __slots__ = ("amount", "argument", "key", "spec", "text")

    def __init__(self, key: bytes, spec: Spec) -> None:
        self.key = key
        self.spec = spec
        self.text = spec_text(spec)
        self.amount = 0
        self.argument = bulk(self.text + b"0")


class Calls:
    """Makes the calls of one domain. Every method raises ValueError for what is out of bounds."""

    def __init__(self, scripts: Mapping[str, Script], domain: str = "main", *, keep_ms: int = KEEP_MS) -> None:
        if not domain.isascii() or not domain.replace("-", "").isalnum():
            raise ValueError(f"domain {domain!r} must be of ASCII letters, digits and hyphens")
        self.prefix = f"{{gw:{domain}}}:{LAYOUT}:"
        self._reserve, self._settle, self._renew, self._lease, self._peek = (scripts[name] for name in NAMES)
        self._keep_ms = keep_ms
        self._hold_prefix = f"{self.prefix}h:".encode()
        self._known: dict[str, _Known] = {}
        self._firsts: dict[tuple[int, int, int], bytes] = {}
        self._settle_first = bulk(b"%d" % keep_ms)
        self._epoch = f"{self.prefix}epoch".encode()
        self._known_until = f"{self.prefix}known:".encode()

    def reserve(
        self, hold: str, takes: Sequence[Amount], *, lease_ms: int, attempt: int, releases: Sequence[Amount]
    ) -> bytes:
        """The bytes of a RESERVE."""
        if len(takes) > MAX_CHARGES or len(releases) > MAX_CHARGES:
            raise ValueError(f"{len(takes)} takes and {len(releases)} releases, must be at most {MAX_CHARGES} each")
        first = self._firsts.get((len(takes), attempt, lease_ms))
        if first is None:
            first = self._first(len(takes), attempt, lease_ms)
        keys, arguments = [self._hold_key(hold)], [first]
        self._add(takes, keys, arguments)
        if releases:
            self._add(releases, keys, arguments)
        return self._reserve.head(len(keys), len(arguments)) + b"".join(keys + arguments)

    def settle(self, hold: str, actuals: Sequence[Amount]) -> bytes:
        """The bytes of a SETTLE."""
        keys, arguments = [self._hold_key(hold)], [self._settle_first]
        self._add(actuals, keys, arguments)
        return self._settle.head(len(keys), len(arguments)) + b"".join(keys + arguments)

    def renew(self, holds: Sequence[Renewal], *, lease_ms: int) -> bytes:
        """The bytes of a RENEW of 1 to MAX_RENEWALS holds."""
        if not 1 <= len(holds) <= MAX_RENEWALS:
            raise ValueError(f"{len(holds)} holds to renew, must be 1 to {MAX_RENEWALS}")
        keys: list[bytes] = []
        arguments = [bulk(b"%d %d" % (prove_lease(lease_ms), self._keep_ms))]
        for renewal in holds:
            keys.append(self._hold_key(renewal.hold))
            keys += [bulk(self.key(Kind.SLOTS, name)) for name in renewal.slots]
            arguments.append(bulk(b"%d" % len(renewal.slots)))
        return self._renew.head(len(keys), len(arguments)) + b"".join(keys + arguments)

    def lease(
        self, node: str, turn: int, bucket: str, spec: Spec, *, want: int, least: int, unused: int, lease_ms: int
    ) -> bytes:
        """The bytes of a LEASE."""
        if spec.kind is Kind.SLOTS:
            raise ValueError(f"bucket {bucket!r} counts slots; only a RATE or a WINDOW can be leased in slices")
        if not 0 <= turn < EXACT:
            raise ValueError(f"turn is {turn}, must be 0 to 2^53 - 1")
        if not 0 <= least <= want:
            raise ValueError(f"least is {least}, must be 0 to want, {want}")
        prove_amount(want)
        prove_amount(abs(unused))
        first = b"%d %d %d %d %d" % (turn, want, unused, prove_lease(lease_ms), self._keep_ms)
        key = self.key(spec.kind, bucket)
        own = f"{self.prefix}l:{encoded(node)}:".encode() + key[len(self.prefix) :]
        parts = (self._lease.head(2, 2), bulk(own), bulk(key), bulk(first))
        return b"".join(parts) + bulk(spec_text(spec) + b"%d" % least)

    def peek(self, asked: Sequence[Amount]) -> bytes:
        """The bytes of a PEEK of at least one bucket."""
        if not asked:
            raise ValueError("a peek asks about at least one bucket")
        keys: list[bytes] = []
        arguments: list[bytes] = []
        self._add(asked, keys, arguments)
        return self._peek.head(len(keys), len(arguments)) + b"".join(keys + arguments)

    def name_epoch(self, made: str) -> bytes:
        """The bytes of the plain command that names the memory, unless it has a name."""
        return command(b"SET", self._epoch, made.encode(), b"NX")

    def ask_epoch(self, node: str) -> bytes:
        """The bytes of the plain command that asks for its name and for what this node left there.

        MGET, to which the scripts need a right anyway.
        """
        return command(b"MGET", self._epoch, self._known_until + encoded(node).encode())

    def leave_known(self, node: str, known_us: int) -> bytes:
        """The bytes of the plain command that leaves there up to when this node's settlements are in the memory."""
        key = self._known_until + encoded(node).encode()
        return command(b"SET", key, b"%d" % known_us, b"PX", b"%d" % (2 * self._keep_ms))

    def forget(self, buckets: Sequence[tuple[Kind, str]]) -> bytes:
        """The bytes of the plain command that forgets these buckets; at least one."""
        return command(b"DEL", *(self.key(kind, name) for kind, name in buckets))

    def key(self, kind: Kind, name: str) -> bytes:
        """The key of a bucket."""
        return f"{self.prefix}{_LETTER[kind]}:{encoded(name)}".encode()

    def _hold_key(self, hold: str) -> bytes:
        name = hold.encode()
        return b"$%d\r\n%b%b\r\n" % (len(self._hold_prefix) + len(name), self._hold_prefix, name)

    def _first(self, count: int, attempt: int, lease_ms: int) -> bytes:
        first = bulk(b"%d %d %d %d" % (count, prove_amount(attempt), prove_lease(lease_ms), self._keep_ms))
        if len(self._firsts) < _MAX_CACHED:
            self._firsts[count, attempt, lease_ms] = first
        return first

    def _add(self, amounts: Sequence[Amount], keys: list[bytes], arguments: list[bytes]) -> None:
        known = self._known
        for asked in amounts:
            found = known.get(asked.bucket)
            if found is None or found.spec is not asked.spec:
                found = self._learn(asked)
            keys.append(found.key)
            amount = asked.amount
            if amount != found.amount:
                if not 0 <= amount <= MAX_AMOUNT:
                    prove_amount(amount)
                text = b"%b%d" % (found.text, amount)
                found.argument = b"$%d\r\n%b\r\n" % (len(text), text)
                found.amount = amount
            arguments.append(found.argument)

    def _learn(self, asked: Amount) -> _Known:
        if len(self._known) >= _MAX_CACHED:
            self._known.clear()
        found = self._known[asked.bucket] = _Known(bulk(self.key(asked.spec.kind, asked.bucket)), asked.spec)
        return found


def encoded(name: str) -> str:
    """A name as it stands in a key: visible ASCII without blanks, braces, `%` and `~`, of bounded length."""
    text = quote(name, safe=_VISIBLE).replace("~", "%7E")
    if len(text) <= MAX_NAME_BYTES:
        return text
    return f"{text[: MAX_NAME_BYTES - 33]}~{hashlib.blake2b(name.encode(), digest_size=16).hexdigest()}"


def spec_text(spec: Spec) -> bytes:
    """A spec as the scripts read it, a blank behind it for the amount."""
    first, second = (spec.start_ms, spec.end_ms) if spec.kind is Kind.WINDOW else (spec.amount, spec.period_ms)
    return b"%b%d %d %d %d " % (_LETTER[spec.kind].encode(), spec.shadow, spec.limit, first, second)
