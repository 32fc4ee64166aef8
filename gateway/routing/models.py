"""The catalogue: which model names exist, what each stands for, and who can serve it.

A name is looked up exactly, then among the patterns (`openai/*`), the longest prefix first. An entry lists its own
targets and, behind them, those of its fallbacks; per dialect only targets that speak it remain, because bytes pass
untouched. Generic in the target, which is the relay's: this module only orders them.

Invariants: lookup reads no clock and no random source; `order` gives every usable target exactly once.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from gateway.config.schema import Config, Model

T = TypeVar("T")


class Candidate(NamedTuple, Generic[T]):
    """A target with its weight among its siblings."""

    target: T
    weight: int
    dialect: str


class Entry(Generic[T]):
    """One entry of `models`: groups of candidates, its own first, then each fallback's."""

    def __init__(self, pattern: str, config: Model, groups: Sequence[Sequence[Candidate[T]]]) -> None:
        self.pattern = pattern
        self.config = config
        self._by_dialect: dict[str, tuple[tuple[Candidate[T], ...], ...]] = {}
        for dialect in {candidate.dialect for group in groups for candidate in group}:
            kept = (tuple(c for c in group if c.dialect == dialect) for group in groups)
            self._by_dialect[dialect] = tuple(group for group in kept if group)
        self._single = {
            dialect: (kept[0][0].target,)
            for dialect, kept in self._by_dialect.items()
            if len(kept) == 1 and len(kept[0]) == 1
        }

    @property
    def dialects(self) -> frozenset[str]:
        """The dialects this entry can be asked in."""
        return frozenset(self._by_dialect)

    def order(self, dialect: str, draw: Callable[[], float]) -> tuple[T, ...]:
        """The targets in the order to try them: by weighted chance within a group, group after group.

        `draw` gives a number in [0, 1). A weight of 0 is only tried when every weighted sibling has been. Empty when
        no target speaks the dialect.
        """
        single = self._single.get(dialect)
        if single is not None:
            return single
        groups = self._by_dialect.get(dialect, ())
        return tuple(target for group in groups for target in _shuffled(group, draw))


class Found(NamedTuple, Generic[T]):
    """An entry, and what the star of its pattern stood for ("" for exact names)."""

    entry: Entry[T]
    star: str


class Catalogue(Generic[T]):
    """All entries of a config."""

    def __init__(self, entries: Mapping[str, Entry[T]]) -> None:
        self._exact = {name: Found(entry, "") for name, entry in entries.items() if not name.endswith("*")}
        patterns = [(name[:-1], entry) for name, entry in entries.items() if name.endswith("*")]
        self._prefixes = tuple(sorted(patterns, key=lambda row: -len(row[0])))
        self.names: Final = tuple(self._exact)

    def find(self, name: str) -> Found[T] | None:
        """The entry for a model name; exact names first, then the longest matching pattern."""
        found = self._exact.get(name)
        if found is not None:
            return found
        for prefix, entry in self._prefixes:
            if name.startswith(prefix) and len(name) > len(prefix):
                return Found(entry, name[len(prefix) :])
        return None

    def entries(self) -> Iterable[Entry[T]]:
        """Every entry, exact names first."""
        yield from (found.entry for found in self._exact.values())
        yield from (entry for _, entry in self._prefixes)


def catalogue(config: Config, candidates: Callable[[Model, str], Sequence[Candidate[T]]]) -> Catalogue[T]:
    """Compile a config's models.

    `candidates(model, star)` makes the targets of one entry; a `star` other than ""
    is already known (a fallback that names a model a pattern matches).

    Fallbacks are followed one level deep, as written: a fallback's own fallbacks are its own callers' business.
    """
    own = {name: tuple(candidates(model, "")) for name, model in config.models.items()}
    plain = Catalogue({name: Entry(name, model, (own[name],)) for name, model in config.models.items()})

    def fallback(name: str) -> tuple[Candidate[T], ...]:
        found = plain.find(name)
        if found is None:  # the config's check has refused it; a snapshot of another build may still say it
            return ()
        return tuple(candidates(found.entry.config, found.star)) if found.star else own[found.entry.pattern]

    return Catalogue(
        {
            name: Entry(name, model, (own[name], *(fallback(other) for other in model.fallbacks)))
            for name, model in config.models.items()
        }
    )


def _shuffled(group: tuple[Candidate[T], ...], draw: Callable[[], float]) -> list[T]:
    left = [candidate for candidate in group if candidate.weight > 0]
    ordered: list[T] = []
    while left:
        point = draw() * sum(candidate.weight for candidate in left)
        chosen = left[-1]
        for candidate in left:
            point -= candidate.weight
            if point < 0:
                chosen = candidate
                break
        left.remove(chosen)
        ordered.append(chosen.target)
    return ordered + [candidate.target for candidate in group if candidate.weight == 0]
