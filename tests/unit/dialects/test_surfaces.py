"""Paths are matched as sent: what a provider might read as another path matches nothing."""

import pytest

from gateway.dialects.base import BodyMode
from gateway.dialects.surfaces import SURFACES, known_path, match


def test_every_exact_path_finds_its_surface() -> None:
    for surface in SURFACES:
        if "{" not in surface.path:
            found = match(surface.method, surface.path)
            assert found is not None
            assert found.surface is surface
            assert known_path(surface.path)


@pytest.mark.parametrize(
    ("method", "path", "name", "params"),
    [
        ("GET", "/v1/models/gpt-4o", "models.retrieve", {"model": "gpt-4o"}),
        ("GET", "/v1/models/openai/gpt-4o", "models.retrieve", {"model": "openai/gpt-4o"}),
        ("POST", "/passthrough/acme/v1/x/y", "passthrough", {"provider": "acme", "rest": "v1/x/y"}),
        ("DELETE", "/passthrough/acme/files", "passthrough", {"provider": "acme", "rest": "files"}),
    ],
)
def test_parameters(method: str, path: str, name: str, params: dict[str, str]) -> None:
    found = match(method, path)
    assert found is not None
    assert (found.surface.name, found.params) == (name, params)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "/v1/chat/completions/",
        "/v1//chat/completions",
        "/V1/chat/completions",
        "/v1/chat%2Fcompletions",
        "/v1/models/",
        "/v1/models/a/../b",
        "/v1/models/a%2e%2E/b",
        "/v1/models/a%2fb",
        "/v1/models/a\\b",
        "/passthrough/acme/a%5Cb",
        "/v1/models/./a",
        "/passthrough/acme",
        "/passthrough/acme/",
        "/passthrough//x",
        "/passthrough/acme/a//b",
    ],
)
def test_paths_that_match_nothing(path: str) -> None:
    assert match("GET", path) is None
    assert match("POST", path) is None
    assert not known_path(path)


def test_another_method_on_a_known_path() -> None:
    assert match("GET", "/v1/chat/completions") is None
    assert known_path("/v1/chat/completions")
    assert match("POST", "/v1/models/x") is None
    assert known_path("/v1/models/x")


def test_names_and_paths_are_unique_and_relayed_ones_go_somewhere() -> None:
    assert len({surface.name for surface in SURFACES}) == len(SURFACES)
    assert len({(surface.method, surface.path) for surface in SURFACES}) == len(SURFACES)
    for surface in SURFACES:
        assert bool(surface.upstream_path) == (surface.body is not BodyMode.NONE)
