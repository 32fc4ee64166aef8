"""Units: how many of one are in another.

Names end in their unit (`timeout_s`, `waited_us`, `cost_microusd`), so that two numbers of different units never meet
unseen.
"""

from typing import Final

NS_PER_US: Final = 1_000
NS_PER_MS: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000
US_PER_S: Final = 1_000_000
KIB: Final = 1024
MIB: Final = 1024 * 1024
