"""What a server says of its commands is understood; the server itself is in tests/integration/test_bench_limits.py."""

from bench.limits import redis


def test_calls_of_scripts_are_found_among_all_commands() -> None:
    told = (
        b"$99\r\n# Commandstats\r\ncmdstat_ping:calls=7,usec=3\r\n"
        b"cmdstat_evalsha:calls=1234,usec=99,usec_per_call=1.5,rejected_calls=0\r\n"
    )
    assert redis.calls_in(told) == 1234
    assert redis.calls_in(b"$16\r\n# Commandstats\r\n\r\n") == 0
