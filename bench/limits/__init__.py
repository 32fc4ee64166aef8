"""What limits cost, and whether they hold. `python -m bench.limits cost` and `python -m bench.limits proof`.

    cost                 CPU of a worker for reserve and settle, in shared memory and through a store; one process
    redis                a redis-server of our own: it can be killed, and comes back empty
    callers              clients that hammer: one loop, raw connections, as little work an answer as can be
    fleet                gateways in front of a simulated provider, and what may be killed of them
    scenarios            the table: which limit, which load, what is killed
    proof                one scenario after the other, and the report
    evidence             from what callers saw to findings: pure

Reserve and settle are measured as the pipeline calls them (`gateway.limiter.limiter`), with a thousand keys in turn,
so that rows and holds are other ones each time. The proof asks a running `gateway serve` and goes by what callers were
answered; how buckets stand in the end is asked of its admin port, and compared.
"""
