"""Which changes a reload cannot make: those of things that were created before the processes were.

Sockets, and the directory whose lock, snapshots and journal the node holds, belong to the supervisor's start; so does
what OpenSSL copies into each connection before a certificate is chosen for it, what stands once in a segment of
the journal, the place where usage of limits is counted, and the names it is counted under. Everything else acts with
the next snapshot.
"""

from typing import Final

from msgspec.structs import replace

from gateway.config.limits import Limits
from gateway.config.schema import Admin, Config, Tls

_LISTEN: Final = ("host", "port", "backlog")
_TLS: Final = ("client_ca", "min_version")
_ADMIN: Final = ("host", "port")
_LIMITS: Final = (
    "store",
    "ca_file",
    "client_cert",
    "client_key",
    "domain",
    "secret",
    "nodes",
    "slices",
    "on_table_full",
    "max_buckets",
    "max_holds",
    "max_end_users",
)
_NODE: Final = ("state_dir", "node", "region", "database", "exports")


def restart_needed(old: Config, new: Config) -> list[str]:
    """The changed settings that act only after a restart (or an upgrade in place), as operators write them."""
    changed = [f"listen.{name}" for name in _LISTEN if getattr(old.listen, name) != getattr(new.listen, name)]
    changed += _tls(old.listen.tls, new.listen.tls)
    changed += _admin(old.admin, new.admin)
    changed += [f"limits.{name}" for name in _LIMITS if getattr(old.limits, name) != getattr(new.limits, name)]
    changed += [name for name in _NODE if getattr(old, name) != getattr(new, name)]
    if old.journal.enabled != new.journal.enabled:
        changed.append("journal.enabled")
    return changed


def as_started(started: Limits, limits: Limits) -> Limits:
    """The limits of a later snapshot as a node counts them that was started with these."""
    return replace(limits, **{name: getattr(started, name) for name in _LIMITS})


def _tls(old: Tls | None, new: Tls | None) -> list[str]:
    if old is None or new is None:
        return [] if old is new else ["listen.tls"]
    return [f"listen.tls.{name}" for name in _TLS if getattr(old, name) != getattr(new, name)]


def _admin(old: Admin | None, new: Admin | None) -> list[str]:
    if old is None or new is None:
        return [] if old is new else ["admin"]
    return [f"admin.{name}" for name in _ADMIN if getattr(old, name) != getattr(new, name)]
