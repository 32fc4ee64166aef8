"""A config in a few lines, and what is said about it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.config.load import load
from gateway.config.problems import ConfigProblems

Complaints = Callable[..., list[str]]


@pytest.fixture
def complaints(tmp_path: Path) -> Complaints:
    """Everything that is wrong with a config, each as one line without the file's name."""

    def of(text: str, *overrides: str, **env: str) -> list[str]:
        path = tmp_path / "gateway.yaml"
        path.write_text(text)
        try:
            load(path, overrides, env)
        except ConfigProblems as error:
            return [str(problem).replace(f"{path}:", "") for problem in error.problems]
        return []

    return of
