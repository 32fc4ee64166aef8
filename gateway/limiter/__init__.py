"""Limits: reserve before a token is spent, settle what was really used.

`spec.py`, `bucket.py`, `window.py` and `hold.py` are the arithmetic and the states, pure: time is an argument.
`engine.py` says what an engine does with them in one atomic step; there are two engines, shared memory on one host
and a store (`store.py` and the scripts of `lua/`) for a fleet, and they agree on every number.
"""
