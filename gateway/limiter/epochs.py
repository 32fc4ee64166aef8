"""Whether a store's memory is the one we knew, and as far as we knew it: the judgement behind `Store.epoch`.

A memory has a name. Who finds it without one gives it one, and no name is offered twice: so a memory that was lost has
another name than before. A memory may also go back to what it was and keep its name: a replica was promoted that had
not got everything, an old snapshot was loaded. Each node therefore leaves there, with each question, up to when all
that it settled is known to be in it (`known_us`), and finds it again with the next. Finding less, it is *behind*, and
says so until its caller knows more than it knew then, which means that it has settled again what is missing. Before
that nothing is left there, or the doubt would be forgotten together with a caller that dies. Nor is anything left in a
memory of another name than the caller knows, which first has to be given everything.

Pure: no socket, no clock.
"""

import secrets
from typing import Final

from gateway.limiter.engine import Epoch

_UNASKED: Final = -1


class Epochs:
    """Of one store, as one process sees them."""

    def __init__(self) -> None:
        self._made = secrets.token_hex(8)  # how the names begin that are made here
        self._offers = 0
        self._left_us = _UNASKED
        self._doubt: tuple[int, int] | None = None  # what was found when it was too little, and what was known then

    def offer(self) -> str:
        """A name for a memory without one. It may be taken though the call that offers it fails."""
        self._offers += 1
        return f"{self._made}-{self._offers}"

    def judge(self, name: str, remembered_us: int, known: str, known_us: int) -> Epoch:
        """What was found there, for a caller who knows the memory `known` to have everything up to `known_us`.

        Of the first question that is what was left before.
        """
        ours = name.startswith(f"{self._made}-")
        if name != known:
            self.left(0)
            return Epoch(name, ours, remembered_us)
        if self._left_us == _UNASKED:
            self._left_us = known_us
        behind = remembered_us < self._left_us and not self._made_good(remembered_us, known_us)
        if behind:
            self._doubt = (remembered_us, known_us)
        return Epoch(name, ours, remembered_us, behind)

    def left(self, known_us: int) -> None:
        """This is what was left there last."""
        self._left_us = known_us
        self._doubt = None

    def _made_good(self, remembered_us: int, known_us: int) -> bool:
        return self._doubt is not None and remembered_us >= self._doubt[0] and known_us > self._doubt[1]
