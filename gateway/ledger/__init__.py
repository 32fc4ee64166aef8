"""What a request costs: usage × price, in integers.

`catalogue.py` reads the published prices into a `Book`, in a process of its own; `book.py` is that Book as the bytes a
snapshot carries; `prices.py` finds the price of one model in it, or makes one from the config; `cost.py` multiplies.
Pure: no clock, no socket.
"""
