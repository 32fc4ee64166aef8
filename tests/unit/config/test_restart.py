"""What only a restart can change is named; everything else is not."""

import pytest
from msgspec.structs import replace

from gateway.config.limits import Limits, Rule
from gateway.config.restart import as_started, restart_needed
from gateway.config.schema import Admin, Config, Database, Export, Journal, Listen, Log, Tls
from gateway.config.secrets import Secret

OLD = Config(admin=Admin(token=Secret("t" * 16)), state_dir="/s")
ADMIN = Admin(token=Secret("u" * 16), host="::1", port=1)
TLS = Tls(cert="c", key="k", client_ca="ca")
CASES = [
    (replace(OLD, listen=Listen(port=1, host="::1", backlog=9)), ["listen.host", "listen.port", "listen.backlog"]),
    (replace(OLD, admin=ADMIN), ["admin.host", "admin.port"]),
    (replace(OLD, admin=None), ["admin"]),
    (replace(OLD, state_dir="/t"), ["state_dir"]),
    (replace(OLD, node="n", region="r", journal=Journal(enabled=False)), ["node", "region", "journal.enabled"]),
    (replace(OLD, database=Database(url=Secret("postgresql://h/d"))), ["database"]),
    (replace(OLD, exports=(Export(name="e", kind="stdout"),)), ["exports"]),
    (replace(OLD, journal=Journal(durability="synced", max_bytes=1, segment_s=9)), []),
    (replace(OLD, listen=Listen(workers=9, max_connections=5), log=Log(level="debug"), drain_s=1), []),
    (replace(OLD, limits=Limits(store=Secret("redis://h"), nodes=3)), ["limits.store", "limits.nodes"]),
    (replace(OLD, limits=Limits(secret=Secret("s" * 16))), ["limits.secret"]),
    (replace(OLD, limits=Limits(max_buckets=99, max_holds=99)), ["limits.max_buckets", "limits.max_holds"]),
    (replace(OLD, limits=Limits(rules=(Rule(name="r", in_flight=1),), time_zone="Asia/Tokyo")), []),
    (replace(OLD, admin=Admin(token=Secret("u" * 16))), []),
    (OLD, []),
]


@pytest.mark.parametrize(("new", "expected"), CASES)
def test_changes(new: Config, expected: list[str]) -> None:
    assert restart_needed(OLD, new) == expected


def test_limits_are_counted_as_the_node_was_started() -> None:
    rules = (Rule(name="r", in_flight=1),)
    started = Limits(store=Secret("redis://h"), domain="shop", max_buckets=99)
    later = Limits(nodes=3, slices=True, rules=rules, time_zone="Asia/Tokyo")
    assert as_started(started, later) == replace(started, rules=rules, time_zone="Asia/Tokyo")
    assert restart_needed(replace(OLD, limits=started), replace(OLD, limits=as_started(started, later))) == []


def test_an_admin_port_that_appears_needs_a_restart() -> None:
    assert restart_needed(Config(), replace(Config(), admin=ADMIN)) == ["admin"]
    assert restart_needed(Config(), Config()) == []


def test_tls_may_change_its_certificates_and_nothing_else() -> None:
    old = Config(listen=Listen(tls=TLS))
    rows = [
        (Tls(cert="d", key="l", client_ca="ca"), []),
        (Tls(cert="c", key="k", min_version="1.3"), ["listen.tls.client_ca", "listen.tls.min_version"]),
        (None, ["listen.tls"]),
    ]
    for tls, expected in rows:
        assert restart_needed(old, Config(listen=Listen(tls=tls))) == expected
    assert restart_needed(Config(), old) == ["listen.tls"]
