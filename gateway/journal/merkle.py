"""Merkle trees over leaf hashes: one root that stands for many lines, and a short proof that one of them is in it.

The tree is RFC 9162's (section 2.1, the same as RFC 6962's), over leaf values as they are given: a leaf node is the
`leaf_of(body)` of a line itself, an inner node is SHA-256(0x01 ‖ left ‖ right), and the empty tree is SHA-256 of
nothing. A body starts with `{` and never with 0x01, so a leaf cannot be passed off as an inner node.

Invariants: a root depends on every leaf and on their order; a proof holds for one leaf at one index of a tree of one
size. The size decides on which side a sibling stands, so it must come from where the root comes from: a manifest signs
both. A path alone does not prove a size (in trees of 3 and of 4 leaves the first leaf's path has the same shape).
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

from gateway.journal.line import HASH_BYTES

EMPTY_ROOT: Final = sha256(b"").digest()
_INNER: Final = b"\x01"


class Tree:
    """A root in the making: leaves come one by one, and only the roots of whole subtrees are kept (log2 of them)."""

    __slots__ = ("_subtrees", "size")

    def __init__(self) -> None:
        self.size = 0
        self._subtrees: list[bytes] = []  # one for each 1 in `size` written in binary, the largest first

    def add(self, leaf: bytes) -> None:
        """Append a leaf of 32 bytes."""
        subtrees, size, node = self._subtrees, self.size, leaf
        while size & 1:
            node = sha256(_INNER + subtrees.pop() + node).digest()
            size >>= 1
        subtrees.append(node)
        self.size += 1

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Append leaves in order."""
        for leaf in leaves:
            self.add(leaf)

    def root(self) -> bytes:
        """The root of the leaves so far; more may follow."""
        if not self._subtrees:
            return EMPTY_ROOT
        node = self._subtrees[-1]
        for left in reversed(self._subtrees[:-1]):
            node = inner(left, node)
        return node


def inner(left: bytes, right: bytes) -> bytes:
    """The node above two nodes."""
    return sha256(_INNER + left + right).digest()


def root_of(leaves: Iterable[bytes]) -> bytes:
    """The root over these leaves."""
    tree = Tree()
    tree.extend(leaves)
    return tree.root()


def inclusion_proof(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The siblings on the way from a leaf up to the root, lowest first. Raises IndexError.

    A level at a time: a last node without a sibling moves up as it is, which is RFC 9162's tree exactly.
    """
    if not 0 <= index < len(leaves):
        raise IndexError(f"leaf {index} of a tree of {len(leaves)}")
    path, level = list[bytes](), list(leaves)
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        odd = level[len(level) & ~1 :]
        level = [inner(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)] + odd
        index >>= 1
    return tuple(path)


def is_included(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether `leaf` stands at `index` in the tree of `size` leaves with this root (RFC 9162, section 2.1.3.2).

    `size` and `root` must come from the same signed manifest. Raises nothing for any leaf, path and numbers.
    """
    if not 0 <= index < size or any(len(node) != HASH_BYTES for node in (leaf, *path)):
        return False
    at, last, node = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if at & 1 or at == last:
            node = inner(sibling, node)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            node = inner(node, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and node == root
