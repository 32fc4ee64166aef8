"""Downstream HTTP: bytes become one unambiguous request of a known surface; answers and errors become bytes."""
