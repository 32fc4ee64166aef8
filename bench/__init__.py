"""What measures and exercises the gateway from outside, and the simulated provider it is tested with.

    speed      how fast, beside nginx and other gateways; native load          native/  its two C programs
    compare    two results of it side by side                                  profile  where a worker's time goes
    load       realistic load with Locust, judged                              locust/  Locust's side of it
    capacity   what a load takes, from measured coefficients                   calls    calls a request, for CI
    keys, journal   two parts measured by themselves                           sim      the simulated provider

Nothing here is imported by `gateway`. What speaks HTTP imports nothing of it either: both sides meet on a socket, so
a mistake in the gateway's idea of a wire format cannot be repeated here by sharing code. `keys`, `journal` and `calls`
measure its parts in their own process.
"""
