"""`--set` puts one value anywhere in the tree and touches nothing else."""

import pytest

from gateway.config.overrides import Misplaced, apply, split
from gateway.config.problems import Path
from gateway.config.tree import Mapping, Node, Sequence, parse


def tree(text: str) -> Node:
    root, problems = parse(text, "f")
    assert root is not None
    assert not problems
    return root


def plain(node: Node) -> object:
    if isinstance(node, Mapping):
        return {name: plain(child) for name, child in node.entries.items()}
    return [plain(child) for child in node.items] if isinstance(node, Sequence) else node.text


PATHS: list[tuple[str, Path, object]] = [
    ("listen.port=9000", ("listen", "port"), "9000"),
    ('models."gpt-4.1".targets[0].weight=2', ("models", "gpt-4.1", "targets", 0, "weight"), "2"),
    (r'models."a\"b".x=1', ("models", 'a"b', "x"), "1"),
    ("models.openai/*.x=1", ("models", "openai/*", "x"), "1"),
    ("keys=[{id: a}]", ("keys",), [{"id": "a"}]),
    ("admin=null", ("admin",), "null"),
    ("admin.token=", ("admin", "token"), ""),
    ("admin.token=a=b", ("admin", "token"), "a=b"),
    ("admin.token=@x", ("admin", "token"), "@x"),
    ("admin.token=[a", ("admin", "token"), "[a"),
]


@pytest.mark.parametrize(("text", "path", "value"), PATHS)
def test_an_override_is_a_path_and_a_yaml_value(text: str, path: Path, value: object) -> None:
    found, node = split(text)
    assert found == path
    assert plain(node) == value


@pytest.mark.parametrize("text", ["", "=1", "a", "a b=1", "a..b=1", ".a=1", "a.=1", "a[x]=1", 'a."b=1'])
def test_what_is_no_override_says_how_one_is_written(text: str) -> None:
    with pytest.raises(Misplaced, match="path=value"):
        split(text)


BASE = "a: {b: 1, l: [{x: 1}, {x: 2}]}\n"
LAID = [
    ("a.b=2", {"a": {"b": "2", "l": [{"x": "1"}, {"x": "2"}]}}),
    ("a.l[1].x=3", {"a": {"b": "1", "l": [{"x": "1"}, {"x": "3"}]}}),
    ("a.l.0.x=3", {"a": {"b": "1", "l": [{"x": "3"}, {"x": "2"}]}}),
    ("a.l[2]=z", {"a": {"b": "1", "l": [{"x": "1"}, {"x": "2"}, "z"]}}),
    ("n.m.o=1", {"a": {"b": "1", "l": [{"x": "1"}, {"x": "2"}]}, "n": {"m": {"o": "1"}}}),
]


@pytest.mark.parametrize(("override", "expected"), LAID)
def test_overrides_are_laid_over_the_tree(override: str, expected: object) -> None:
    root, problems = apply(tree(BASE), [override])
    assert not problems
    got = plain(root)
    assert got == expected


def test_later_overrides_win_and_the_file_stays_as_it_was() -> None:
    base = tree(BASE)
    root, _ = apply(base, ["a.b=2", "a.b=3"])
    assert plain(root) != plain(base)
    assert plain(base) == {"a": {"b": "1", "l": [{"x": "1"}, {"x": "2"}]}}


def test_what_shares_an_alias_is_not_changed_with_it() -> None:
    root, _ = apply(tree("x: &x {a: 1}\ny: *x\n"), ["x.a=2"])
    assert plain(root) == {"x": {"a": "2"}, "y": {"a": "1"}}


MISPLACED = [
    ("a.b.c=1", "`a.b` is a single value"),
    ("a[0]=1", "`a` is not a list"),
    ("a.l.x=1", "`a.l` is a list: say which"),
    (f"a.l.{'9' * 5000}=1", "`a.l` is a list: say which"),
    ("a.l[5]=1", "`a.l` has 2 items"),
]


@pytest.mark.parametrize(("override", "said"), MISPLACED)
def test_a_path_that_leads_nowhere_is_a_problem_of_the_command_line(override: str, said: str) -> None:
    _, problems = apply(tree(BASE), [override])
    assert said in problems[0].message
    assert str(problems[0]).startswith("--set: ")
