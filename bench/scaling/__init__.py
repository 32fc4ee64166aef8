"""What a request costs as things grow: prompts, limits, keys, open streams, nodes. `python -m bench.scaling`.

Each part turns one knob of the same gateway (key with four limits, prices, journal, metrics) under the native load of
`bench.speed`, and tells what a request costs at each setting beside the first one. It is not for how fast the gateway
is, which `bench.speed` says with more repeats and beside nginx, but for whether a cost stays where it was.

    points      one figure at one setting, and the tables and charts made of them: pure
    stand       what parts share
    parts       the parts, of one gateway
    nodes       the part of several nodes on one store
    network     network namespaces, for nodes to be hosts of their own
"""
