"""What a request costs: usage × price, in integers.

`catalogue.py` reads the published prices into a `Book`, once, in the process that compiles a snapshot; `prices.py`
finds the price of one model in it, or makes one from the config; `cost.py` multiplies. Pure: no clock, no socket.
"""
