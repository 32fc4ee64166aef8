"""What limits cost. `python -m bench.limits cost`.

    cost                 CPU of a worker for reserve and settle, in shared memory and through a store; one process
    redis                a redis-server of our own: it can be killed, and comes back empty

Reserve and settle are measured as the pipeline calls them (`gateway.limiter.limiter`), with a thousand keys in turn,
so that rows and holds are other ones each time.
"""
