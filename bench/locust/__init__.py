"""Locust's side of the load profiles: one locustfile each, and `kit` with what they share.

    python -m bench.load chat                                      what one usually wants: see bench/load
    PYTHONPATH=. locust -f bench/locust/chat.py --host http://…    by hand, with Locust's own options and web page

Locust is not among the packages of the gateway or of its tests, so whatever needs no Locust is in bench/load.
"""
