"""The locks pin every package by version and hash, name no index, and cover what pyproject.toml asks for."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lock: Path) -> dict[str, str]:
    return {normal(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", lock.read_text(), re.MULTILINE)}


def names(requirements: list[str]) -> set[str]:
    return {normal(re.split(r"[<>=!~\[; ]", requirement)[0]) for requirement in requirements}


def test_there_is_a_lock_for_each_use() -> None:
    assert [lock.stem for lock in LOCKS] == ["bench", "build", "run", "test"]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_package_is_pinned_with_its_hashes_and_no_index_is_named(lock: Path) -> None:
    requirements = lock.read_text().replace("\\\n", " ").splitlines()
    assert requirements
    for requirement in requirements:
        assert re.match(r"^[\w.-]+==[\w.]+ .*--hash=sha256:[0-9a-f]{64}", requirement), requirement
    assert not re.search(r"https?:|--index|--find|@", lock.read_text())


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        ("run", PROJECT["project"]["dependencies"]),
        ("bench", PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["bench"]),
        ("build", PROJECT["build-system"]["requires"]),
        ("test", PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["test"]),
    ],
)
def test_a_lock_covers_what_is_asked_for(lock: str, wanted: list[str]) -> None:
    assert names(wanted) <= pins(ROOT / "requirements" / f"{lock}.txt").keys()


@pytest.mark.parametrize("lock", ["test", "bench"])
def test_tests_and_benches_run_on_the_versions_that_serve(lock: str) -> None:
    run, other = pins(ROOT / "requirements/run.txt"), pins(ROOT / f"requirements/{lock}.txt")
    assert {name: other[name] for name in run} == run


def test_the_licence_that_is_declared_is_the_one_that_is_shipped() -> None:
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0" in (ROOT / "LICENSE").read_text()


def test_every_ruff_rule_is_on_and_every_exception_has_a_reason() -> None:
    assert PROJECT["tool"]["ruff"]["lint"]["select"] == ["ALL"]
    section = (ROOT / "pyproject.toml").read_text().partition("[tool.ruff.lint]")[2].partition("[tool.importlinter]")[0]
    exceptions = re.findall(r'^  "[A-Z]+[0-9]*",(.*)$', section, re.MULTILINE)
    assert len(exceptions) > 10
    assert all(re.fullmatch(r" +# \S.*", reason) for reason in exceptions)
