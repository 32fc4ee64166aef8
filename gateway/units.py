"""Units as types: what a bare int means, checked by mypy and free at run time.

Names end in their unit (`timeout_s`, `waited_us`, `cost_microusd`); these types keep two integers of different
units from being mixed where both are plain ints.
"""

from typing import Final, NewType

Milliseconds = NewType("Milliseconds", int)
Microseconds = NewType("Microseconds", int)
Nanoseconds = NewType("Nanoseconds", int)
MicroUsd = NewType("MicroUsd", int)

NS_PER_US: Final = 1_000
NS_PER_MS: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000
US_PER_S: Final = 1_000_000
KIB: Final = 1024
MIB: Final = 1024 * 1024
