"""YAML becomes nodes that know their place, whatever is thrown at it."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.problems import Path, Place
from gateway.config.tree import MAX_DEPTH, Mapping, Node, Scalar, Sequence, find, name_place, parse, place_of


def plain(node: Node | None) -> object:
    if isinstance(node, Mapping):
        return {name: plain(child) for name, child in node.entries.items()}
    if isinstance(node, Sequence):
        return [plain(child) for child in node.items]
    return node.text if node is not None else None


def tree(text: str) -> Node:
    root, problems = parse(text, "f")
    assert not problems
    assert root is not None
    return root


def test_every_node_and_name_has_its_line_and_column() -> None:
    root = tree("listen:\n  port: 8080\nkeys:\n  - id: a\n")
    assert place_of(root, ("listen", "port"), Place("f")) == Place("f", 2, 9)
    assert place_of(root, ("keys", 0, "id"), Place("f")) == Place("f", 4, 9)
    assert isinstance(root, Mapping)
    assert name_place(root, "keys") == Place("f", 3, 1)


def test_the_place_of_what_is_not_there_is_the_nearest_thing_around_it() -> None:
    root = tree("a:\n  b: 1\n")
    assert place_of(root, ("a", "c", "d"), Place("f")) == Place("f", 2, 3)
    assert place_of(None, ("a",), Place("f")) == Place("f")
    assert find(root, ("a", "c")) is None
    assert find(root, ("a", 0)) is None


def test_scalars_keep_their_spelling_and_whether_they_were_quoted() -> None:
    root = tree("[007, 'no', yes, 1.20, ~, '', \"~\"]")
    assert isinstance(root, Sequence)
    assert [node.text for node in root.items if isinstance(node, Scalar)] == ["007", "no", "yes", "1.20", "~", "", "~"]
    assert [node.null for node in root.items if isinstance(node, Scalar)] == [False] * 4 + [True, False, False]


def test_aliases_and_merge_keys() -> None:
    root = tree("x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}\nz: {<<: [{c: 4}, *x], a: 5}\n")
    assert plain(root) == {
        "x": {"a": "1", "b": "2"},
        "y": {"b": "3", "a": "1"},
        "z": {"a": "5", "c": "4", "b": "2"},
    }


FAULTS: list[tuple[str, Path, str, tuple[int, int]]] = [
    ("a: 1\nb: 2\na: 3\n", ("a",), "given twice, first at f:1:1", (3, 1)),
    ("m: {x: 1, x: 2}", ("m", "x"), "given twice", (1, 11)),
    ("a: *b\n", ("a",), "needs an anchor", (1, 4)),
    ("a: &b [*b]\n", ("a", 0), "stands inside of what it repeats", (1, 8)),
    ("a: !!python/name:os.system x\n", ("a",), "has no meaning here", (1, 4)),
    ("a: !secret x\n", ("a",), "has no meaning here", (1, 4)),
    ("? [a]\n: 1\n", (), "a name must be plain text", (1, 3)),
    ("a: 1\n---\nb: 2\n", (), "second document", (2, 1)),
    ("a: {<<: 1}\n", ("a", "<<"), "`<<` takes a mapping", (1, 9)),
    ("a: [1\n", (), "is not YAML", (2, 1)),
    ("a:\n\tb: 1\n", (), "is not YAML", (2, 1)),
    ("a: \x00", (), "cannot be read as YAML", (0, 0)),
    ("[" * 1000, (0,) * MAX_DEPTH, f"deeper than {MAX_DEPTH}", (1, MAX_DEPTH + 1)),
]


@pytest.mark.parametrize(("text", "path", "said", "place"), FAULTS)
def test_faults_are_placed(text: str, path: Path, said: str, place: tuple[int, int]) -> None:
    _, problems = parse(text, "f")
    assert [problem.path for problem in problems] == [path]
    assert said in problems[0].message
    assert (problems[0].place.line, problems[0].place.column) == place


def test_a_few_lines_cannot_become_gigabytes() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    _, problems = parse("\n".join(lines), "f")
    assert "too many aliases" in problems[0].message


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n...\n"])
def test_no_content_is_no_tree(text: str) -> None:
    root, problems = parse(text, "f")
    assert root is None or (isinstance(root, Scalar) and root.null)
    assert not problems


def test_a_tree_survives_being_stored() -> None:
    root = tree("a: {b: [1, 'x']}\nc: ~\n")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(root), type=Node) == root


@given(st.text() | st.text(alphabet=":-[]{}&*!|>'\"%@` \n#a1,?<~"))
def test_any_text_is_a_tree_or_a_problem(text: str) -> None:
    root, problems = parse(text, "f")
    assert problems or root is None or plain(root) is not None
