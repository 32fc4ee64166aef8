"""The tree is the one RFC 9162 defines, and a proof holds for its own leaf, index and root only."""

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from gateway.journal.merkle import Tree, inclusion_proof, is_included, root_of

SIZES = st.integers(1, 200)


def leaves_of(size: int, salt: int = 0) -> list[bytes]:
    return [sha256(b"%d/%d" % (salt, number)).digest() for number in range(size)]


def split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1


def naive_root(leaves: list[bytes]) -> bytes:
    """RFC 9162, 2.1.1, word by word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    at = split(len(leaves))
    return sha256(b"\x01" + naive_root(leaves[:at]) + naive_root(leaves[at:])).digest()


def naive_path(index: int, leaves: list[bytes]) -> list[bytes]:
    """RFC 9162, 2.1.3.1, word by word."""
    if len(leaves) == 1:
        return []
    at = split(len(leaves))
    if index < at:
        return [*naive_path(index, leaves[:at]), naive_root(leaves[at:])]
    return [*naive_path(index - at, leaves[at:]), naive_root(leaves[:at])]


def sides(index: int, size: int) -> list[str]:
    """On which side each sibling of a path stands, by the definition."""
    if size == 1:
        return []
    at = split(size)
    return [*sides(index, at), "right"] if index < at else [*sides(index - at, size - at), "left"]


@st.composite
def proofs(draw: st.DrawFn) -> tuple[list[bytes], int, list[bytes]]:
    leaves = leaves_of(draw(SIZES), draw(st.integers(0, 9)))
    index = draw(st.integers(0, len(leaves) - 1))
    return leaves, index, list(inclusion_proof(leaves, index))


@given(st.integers(0, 200))
def test_the_root_is_the_definitions_at_every_size(size: int) -> None:
    leaves, tree = leaves_of(size), Tree()
    assert root_of(leaves) == naive_root(leaves)
    for number, leaf in enumerate(leaves):
        tree.add(leaf)
        assert tree.size == number + 1
        if number % 17 == 0:
            assert tree.root() == naive_root(leaves[: number + 1])
    assert tree.root() == naive_root(leaves)


@given(proofs())
def test_a_proof_is_the_definitions_and_holds(proof: tuple[list[bytes], int, list[bytes]]) -> None:
    leaves, index, path = proof
    assert path == naive_path(index, leaves)
    assert is_included(leaves[index], index, len(leaves), path, naive_root(leaves))


@given(proofs(), st.data())
def test_no_changed_bit_of_leaf_path_or_root_passes(
    proof: tuple[list[bytes], int, list[bytes]], data: st.DataObject
) -> None:
    leaves, index, path = proof
    parts = [leaves[index], naive_root(leaves), *path]
    part, byte, bit = (data.draw(st.integers(0, end)) for end in (len(parts) - 1, 31, 7))
    changed = bytearray(parts[part])
    changed[byte] ^= 1 << bit
    parts[part] = bytes(changed)
    assert not is_included(parts[0], index, len(leaves), parts[2:], parts[1])


@given(proofs(), st.integers(-3, 300))
def test_no_other_index_passes(proof: tuple[list[bytes], int, list[bytes]], other: int) -> None:
    leaves, index, path = proof
    held = is_included(leaves[index], other, len(leaves), path, naive_root(leaves))
    assert held == (other == index)


@given(proofs(), st.integers(-3, 300))
def test_another_size_passes_only_where_the_path_has_the_same_shape(
    proof: tuple[list[bytes], int, list[bytes]], other: int
) -> None:
    leaves, index, path = proof
    held = is_included(leaves[index], index, other, path, naive_root(leaves))
    assert held == (index < other and sides(index, other) == sides(index, len(leaves)))


@given(proofs(), st.data())
def test_a_path_with_a_step_more_or_less_fails(
    proof: tuple[list[bytes], int, list[bytes]], data: st.DataObject
) -> None:
    leaves, index, path = proof
    at = data.draw(st.integers(0, len(path)))
    root = naive_root(leaves)
    more = [*path[:at], data.draw(st.sampled_from([*leaves[:3], root])), *path[at:]]
    assert not is_included(leaves[index], index, len(leaves), more, root)
    for step in range(len(path)):
        less = path[:step] + path[step + 1 :]
        assert not is_included(leaves[index], index, len(leaves), less, root)


@given(SIZES, st.data())
def test_a_moved_or_missing_leaf_changes_the_root(size: int, data: st.DataObject) -> None:
    leaves = leaves_of(size + 1)
    first, second = data.draw(st.sets(st.integers(0, size), min_size=2, max_size=2))
    swapped = list(leaves)
    swapped[first], swapped[second] = swapped[second], swapped[first]
    assert len({root_of(each) for each in (leaves, swapped, leaves[:first] + leaves[first + 1 :], leaves[:-1])}) >= 3
