"""What measures and exercises the gateway from outside: the simulated provider and the load profiles.

Nothing here is imported by `gateway`, and nothing here imports it: both sides meet only on a socket, so a
mistake in the gateway's idea of a wire format cannot be repeated here by sharing code.
"""
