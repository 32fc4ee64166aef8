"""Manifests as anchors get them."""

from hashlib import sha256

from gateway.journal.manifest import FIRST_PREV, MANIFEST_VERSION, Manifest, sign
from gateway.journal.merkle import EMPTY_ROOT
from gateway.journal.signing import Signer

NODE = "0123456789abcdef" * 2


def head(n: int = 7, at_us: int = 1_800_000_000_000_000) -> bytes:
    """A manifest of that number."""
    return sign(
        Manifest(
            v=MANIFEST_VERSION, node=NODE, n=n, at_us=at_us, prev=sha256(b"before").hexdigest() if n else FIRST_PREV,
            chains=(), first={}, leaves=0, root=EMPTY_ROOT.hex(), key="", sig="",
        ),
        Signer(bytes(32)),
    )  # fmt: skip
