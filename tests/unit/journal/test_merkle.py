"""Small trees by hand: what an outsider's program must come to as well."""

from hashlib import sha256

import pytest

from gateway.journal.merkle import EMPTY_ROOT, Tree, inclusion_proof, inner, is_included, root_of

A, B, C, D, E = (sha256(name).digest() for name in (b"a", b"b", b"c", b"d", b"e"))


def up(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def test_small_trees_by_hand() -> None:
    assert root_of([]) == EMPTY_ROOT == sha256(b"").digest()
    assert root_of([A]) == A
    assert root_of([A, B]) == up(A, B) == inner(A, B)
    assert root_of([A, B, C]) == up(up(A, B), C)
    assert root_of([A, B, C, D, E]) == up(up(up(A, B), up(C, D)), E)


def test_a_root_can_be_asked_for_while_leaves_come() -> None:
    tree = Tree()
    assert tree.root() == EMPTY_ROOT
    roots = []
    for leaf in (A, B, C):
        tree.add(leaf)
        roots.append(tree.root())
    assert roots == [A, up(A, B), up(up(A, B), C)]
    assert tree.size == 3


def test_proofs_by_hand() -> None:
    five = [A, B, C, D, E]
    assert inclusion_proof([A], 0) == ()
    assert inclusion_proof(five, 2) == (D, up(A, B), E)
    assert inclusion_proof(five, 4) == (up(up(A, B), up(C, D)),)
    assert all(is_included(leaf, at, 5, inclusion_proof(five, at), root_of(five)) for at, leaf in enumerate(five))


@pytest.mark.parametrize("index", [-1, 2])
def test_there_is_no_proof_for_a_leaf_outside(index: int) -> None:
    with pytest.raises(IndexError, match="of a tree of 2"):
        inclusion_proof([A, B], index)


@pytest.mark.parametrize(
    ("leaf", "index", "size", "path"),
    [
        (A, 0, 0, ()),
        (A, -1, 1, ()),
        (A, 1, 1, ()),
        (A, 0, 1, (B,)),
        (A, 0, 2, ()),
        (A, 0, 2, (B, B)),
        (A[:31], 0, 2, (B,)),
        (A, 0, 2, (B[:31],)),
        (A, 0, 2, (b"",)),
    ],
)
def test_what_is_no_proof(leaf: bytes, index: int, size: int, path: tuple[bytes, ...]) -> None:
    root = root_of([A, B]) if size == 2 else A
    assert not is_included(leaf, index, size, path, root)


def test_an_inner_node_is_no_leaf_one_level_up() -> None:
    root = root_of([A, B, C, D])
    assert is_included(up(A, B), 0, 2, (up(C, D),), root)  # true of a tree of 2: so the size must be the signed one
    assert not is_included(up(A, B), 0, 4, (up(C, D),), root)
