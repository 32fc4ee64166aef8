"""What the admin API shows, as plain values: targets, keys, routes, workers.

Each view is made from the config, the keys and the board as they are now, and leaves out whatever could be used
instead of read: provider keys, key digests, header values. Pure: no clock, no file.
"""

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Any, Final

from gateway.config.keys import KeyRecord
from gateway.config.schema import Config, Provider
from gateway.nodestate import NodeState, SlotPhase
from gateway.routing.match import Router
from gateway.units import NS_PER_MS, NS_PER_S

MAX_PAGE: Final = 1_000
DEFAULT_PAGE: Final = 100

Attempts = Mapping[tuple[str, ...], int]
"""(target, cause) -> attempts since the node started, as the metrics count them."""


def targets(config: Config, attempts: Attempts) -> dict[str, Any]:
    """Providers, and for each model entry its targets with what came of the attempts at them."""
    return {
        "providers": [_provider(name, provider) for name, provider in config.providers.items()],
        "models": [
            {
                "model": pattern,
                "targets": [
                    {
                        "target": (name := f"{target.provider}/{target.model}"),
                        "weight": target.weight,
                        "attempts": {cause: count for (at, cause), count in attempts.items() if at == name},
                    }
                    for target in entry.targets
                ],
                "fallbacks": list(entry.fallbacks),
            }
            for pattern, entry in config.models.items()
        ],
    }


def keys(records: Iterable[KeyRecord], revoked: AbstractSet[str], after: int, limit: int) -> dict[str, Any]:
    """One page of keys in the order they are stored; `next` is the position to ask for next, None at the end.

    Walks over `after` records first: a microsecond each.
    """
    page = list(islice(records, after, after + limit + 1))
    more = len(page) > limit
    return {
        "keys": [key(record, revoked=record.id in revoked) for record in page[:limit]],
        "next": after + limit if more else None,
    }


def key(record: KeyRecord, *, revoked: bool) -> dict[str, Any]:
    """Whom a key speaks for, and what it may use."""
    return {
        "id": record.id,
        "org": record.org,
        "team": record.team,
        "user": record.user,
        "role": record.role,
        "labels": record.labels,
        "data_class": record.data_class,
        "models": list(record.models),
        "disabled": record.disabled,
        "revoked": revoked,
        "expires_ms": record.expires_ms or None,
    }


def routes(config: Config) -> list[dict[str, Any]]:
    """Routes in the order that decides, with the limits a model without its own would get."""
    shown = []
    for route in Router(config).routes:
        terms = route.terms("", None)
        match = route.pattern
        shown.append(
            {
                "name": route.name,
                "match": {"path": match.path, "model": match.model, "labels": match.labels},
                "data_class": route.own_data_class,
                "timeouts": {
                    "connect_s": terms.connect_ns / NS_PER_S,
                    "first_byte_s": terms.first_byte_ns / NS_PER_S,
                    "first_content_s": terms.first_content_ns / NS_PER_S,
                    "idle_s": terms.idle_ns / NS_PER_S,
                    "total_s": terms.total_ns / NS_PER_S,
                },
                "hold_s": terms.hold_ns / NS_PER_S,
                "keepalive_comment_s": terms.comment_ns / NS_PER_S,
                "max_attempts": terms.max_attempts,
            }
        )
    return shown


def workers(state: NodeState, now_ns: int) -> list[dict[str, Any]]:
    """The processes in worker slots."""
    shown = []
    for slot in state.worker_slots:
        words = state.slot(slot)
        if words.pid and words.phase not in {SlotPhase.EMPTY, SlotPhase.GONE}:
            shown.append(
                {
                    "slot": slot,
                    "pid": words.pid,
                    "state": SlotPhase(words.phase).name.lower(),
                    "generation": words.generation,
                    "heartbeat_ms": max(0, now_ns - words.beat_ns) // NS_PER_MS,
                }
            )
    return shown


def worker_counts(state: NodeState) -> Iterator[tuple[str, int]]:
    """Worker processes in each state."""
    phases = [state.slot(slot).phase for slot in state.worker_slots]
    for phase in (SlotPhase.STARTING, SlotPhase.READY, SlotPhase.DRAINING):
        yield phase.name.lower(), phases.count(phase)


def _provider(name: str, provider: Provider) -> dict[str, Any]:
    return {
        "name": name,
        "kind": provider.kind,
        "base_url": provider.base_url,
        "credential": provider.credential,
        "dedicated_to": list(provider.dedicated_to),
    }
