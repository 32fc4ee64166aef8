"""A result's folder is named by date and machine, and its conditions leave nothing blank."""

import pytest

from bench.speed import conditions


@pytest.mark.parametrize(
    ("model", "slug"),
    [
        ("AMD EPYC", "amd-epyc"),
        ("Intel(R) Xeon(R) Platinum 8370C CPU @ 2.80GHz", "intel-xeon-platinum-8370c-cpu-2-80ghz"),
    ],
)
def test_slugs(model: str, slug: str) -> None:
    assert conditions.slug(model) == slug


def test_the_folder_is_date_and_machine() -> None:
    assert conditions.folder_name("2026-01-02 03:04 UTC") == f"2026-01-02-{conditions.slug(conditions.cpu_model())}"
    assert conditions.folder_name("2026-01-02 03:04 UTC", "quick").endswith("-quick")


def test_conditions_name_the_command_and_are_complete() -> None:
    found = conditions.gather(["--quick", "--only", "json"])
    assert found["command"] == "python -m bench.speed --quick --only json"
    assert all(found.values())
    assert "uvloop" in found["python"]
