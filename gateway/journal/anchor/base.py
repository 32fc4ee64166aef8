"""What every kind of anchor promises, and how it fails.

Models a place out of reach of this node where manifests are put, seldom and for good. A journal that was cut back to
an earlier signed state is perfect in itself; that a later manifest lies elsewhere is what gives it away.

Invariants: what is put is the manifest's line, byte for byte and without its newline, so its SHA-256 is the `prev` of
the next manifest. Putting the same one again is no error; another one under the same number is, and is never
overwritten. Calls block, for a bounded time, and are made off the loop.
"""

import importlib
from typing import Any, Protocol


class AnchorFailed(Exception):
    """The anchor did not take a manifest, or does not hold it; the message says where, why, and the fix."""


class Anchor(Protocol):
    """One place. `name` tells it from others in logs and reports."""

    name: str

    def put(self, head: bytes, n: int, node: str) -> str:
        """Put manifest number `n` of a node there; where it is now. Raises AnchorFailed."""

    def check(self, head: bytes, n: int, node: str) -> str:
        """Where this manifest lies. Raises AnchorFailed when it does not lie there as it is given."""


def extra(module: str, name: str) -> Any:  # noqa: ANN401 - a library that may not be installed has no type here
    """A library that only this kind of anchor needs. Raises AnchorFailed naming what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise AnchorFailed(
            f"{module} cannot be imported ({error}): run pip install 'sluice-gateway[{name}]' beside the gateway"
        ) from error
