"""A problem is one line that names place, path, value and fix."""

import pytest

from gateway.config.problems import ConfigProblems, Path, Place, Problem, did_you_mean, dotted, printable

PATHS: list[tuple[Path, str]] = [
    (("listen", "port"), "listen.port"),
    (("models", "gpt-4o", "targets", 0, "provider"), "models.gpt-4o.targets[0].provider"),
    (("models", "gpt-4.1"), 'models."gpt-4.1"'),
    (("models", "openai/*"), "models.openai/*"),
    (("a", ""), 'a.""'),
    ((), ""),
]


@pytest.mark.parametrize(("path", "text"), PATHS)
def test_paths_are_written_as_set_takes_them(path: Path, text: str) -> None:
    assert dotted(path) == text


def test_a_problem_says_where_what_and_the_value() -> None:
    problem = Problem(Place("g.yaml", 3, 7), ("listen", "port"), "must be a whole number", "abc")
    assert str(problem) == "g.yaml:3:7: listen.port: must be a whole number (is abc)"
    assert str(Problem(Place("g.yaml"), (), "is empty")) == "g.yaml: is empty"


def test_problems_come_in_the_order_of_the_file_and_the_command_line_last() -> None:
    places = [Place("--set"), Place("f", 10, 1), Place("f", 2, 9), Place("f", 2, 1)]
    error = ConfigProblems(Problem(place, ("x",), "m") for place in places)
    assert [problem.place for problem in error.problems] == [places[3], places[2], places[1], places[0]]
    assert str(error).count("\n") == 3


def test_shown_text_is_short_and_harmless_to_a_terminal() -> None:
    assert printable("a\x1b[31mb\n") == "a\ufffd[31mb\ufffd"
    assert len(printable("x" * 500)) == 61


def test_only_near_names_are_suggested() -> None:
    assert did_you_mean("prot", ["port", "host"]) == '; did you mean "port"?'
    assert did_you_mean("zzz", ["port", "host"]) == ""
