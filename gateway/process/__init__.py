"""One node's processes: a supervisor that owns the sockets and the shared memory, N workers, one control process.

Start reading at `supervisor.py` (the loop), then `crew.py` (who works where) and `worker.py` (what runs in a worker).
`upgrade.py` and `rollover.py` are how the supervisor replaces its own code without anybody noticing. What the processes
tell each other stands in `gateway/nodestate.py`. Nothing here knows HTTP.
"""
