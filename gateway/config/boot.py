"""From a config file to the generation a node runs by: the one path that start and reload share.

Both read, check and publish, in this order, so a config that does not pass leaves the running one untouched. Keys
made while running are carried over; the config's own keys are taken as the config now has them. Published prices are
those the caller chooses, who is told which the node has, and else those.
"""

import os
from collections.abc import Callable, Iterator
from collections.abc import Mapping as Names
from collections.abc import Sequence as Given
from typing import NamedTuple

from gateway.config.keyindex import Overlay, merged
from gateway.config.keys import KeyRecord, record_of
from gateway.config.load import Loaded, read
from gateway.config.schema import Config
from gateway.config.snapshot import SnapshotStore

ChoosePrices = Callable[[bytes], bytes]
"""From the prices a node has (b"" for none) to those it is to have."""


class Booted(NamedTuple):
    """A published config. `config` is this process's own, keys included."""

    config: Config
    generation: int


def boot_snapshot(
    config_path: str | os.PathLike[str],
    overrides: Given[str] = (),
    state_dir: str | os.PathLike[str] | None = None,
    env: Names[str, str] | None = None,
    prices: ChoosePrices | None = None,
) -> Booted:
    """Load, check and publish; `state_dir` None takes the config's, `prices` None keeps those that are there.

    Raises ConfigProblems or OSError.
    """
    loaded = read(config_path, overrides, env)
    store = SnapshotStore(loaded.config.state_dir if state_dir is None else state_dir)
    return Booted(loaded.config, _publish(store, loaded, prices))


def reload_snapshot(
    config_path: str | os.PathLike[str],
    overrides: Given[str],
    state_dir: str | os.PathLike[str],
    env: Names[str, str] | None = None,
    prices: ChoosePrices | None = None,
) -> Booted:
    """As `boot_snapshot`, for a node that runs: into its state directory, wherever the file now says it is."""
    return boot_snapshot(config_path, overrides, state_dir, env, prices)


def _publish(store: SnapshotStore, loaded: Loaded, choose: ChoosePrices | None) -> int:
    own = [record_of(key) for key in loaded.config.keys]
    prices = None if choose is None else choose(store.prices())
    return store.publish(loaded.document, merged(own, _others(store)), Overlay(), prices)


def _others(store: SnapshotStore) -> Iterator[KeyRecord]:
    current = store.current()
    if current is not None:
        yield from store.keys(current)
