"""The way to a provider and back.

`origin.py` says where a provider lives, `connect.py` opens sockets to it, `pool.py` keeps them, `upstream.py` is one
of them with the exchanges that pass over it, `answer.py` parses what comes back.
"""
