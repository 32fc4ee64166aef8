"""Names, patterns, weights and fallbacks: who is tried, in what order."""

from collections import Counter
from collections.abc import Sequence
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from gateway.config.schema import Config, Model, Target
from gateway.routing.models import Candidate, Catalogue, Entry, catalogue


def _model(*targets: str, fallbacks: tuple[str, ...] = ()) -> Model:
    return Model(targets=tuple(Target(provider=name, model="*") for name in targets), fallbacks=fallbacks)


def _candidates(model: Model, star: str) -> Sequence[Candidate[str]]:
    return [
        Candidate(f"{t.provider}/{star or t.model}", t.weight, "anthropic" if t.provider == "claude" else "openai")
        for t in model.targets
    ]


def _catalogue(**models: Model) -> Catalogue[str]:
    return catalogue(Config(models={name.replace("_star", "/*"): model for name, model in models.items()}), _candidates)


def _first() -> float:
    return 0.0


def test_exact_names_come_before_patterns_and_long_patterns_before_short() -> None:
    none: Sequence[Sequence[Candidate[str]]] = ()
    models = Catalogue({name: Entry(name, _model("a"), none) for name in ("gpt", "gpt*", "gpt-4*", "*")})
    found = {name: models.find(name) for name in ("gpt", "gpt-3", "gpt-4o", "o3")}
    assert {name: (f.entry.pattern, f.star) for name, f in found.items() if f} == {
        "gpt": ("gpt", ""),
        "gpt-3": ("gpt*", "-3"),
        "gpt-4o": ("gpt-4*", "o"),
        "o3": ("*", "o3"),
    }
    assert models.names == ("gpt",)


def test_a_star_stands_for_at_least_one_character() -> None:
    models = _catalogue(openai_star=_model("a"))
    assert models.find("openai/") is None
    assert models.find("openai") is None
    assert models.find("openai/x") is not None


def test_fallbacks_come_behind_and_keep_their_own_star() -> None:
    models = _catalogue(main=_model("a", fallbacks=("other", "wild/thing")), other=_model("b"), wild_star=_model("c"))
    found = models.find("main")
    assert found is not None
    assert found.entry.order("openai", _first) == ("a/*", "b/*", "c/thing")


def test_only_targets_of_the_dialect_are_tried() -> None:
    models = _catalogue(mixed=_model("a", "claude"))
    found = models.find("mixed")
    assert found is not None
    assert found.entry.order("anthropic", _first) == ("claude/*",)
    assert found.entry.order("gemini", _first) == ()
    assert found.entry.dialects == {"openai", "anthropic"}


def test_weights_are_chances() -> None:
    entry: Entry[str] = Entry("m", _model("a"), ([Candidate("x", 3, "d"), Candidate("y", 1, "d")],))
    draws = count()
    first = Counter(entry.order("d", lambda: next(draws) % 8 / 8)[0] for _ in range(4000))
    assert 2.8 < first["x"] / first["y"] < 3.2


def test_weight_zero_waits_for_the_others() -> None:
    entry: Entry[str] = Entry("m", _model("a"), ([Candidate("spare", 0, "d"), Candidate("x", 1, "d")],))
    assert entry.order("d", _first) == ("x", "spare")


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.floats(0, 1, exclude_max=True))
def test_every_target_is_tried_exactly_once(weights: list[int], draw: float) -> None:
    group = [Candidate(index, weight, "d") for index, weight in enumerate(weights)]
    entry: Entry[int] = Entry("m", _model("a"), (group,))
    assert sorted(entry.order("d", lambda: draw)) == list(range(len(weights)))
