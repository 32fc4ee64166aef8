"""A library that is not installed is named with what to install."""

import json

import pytest

from gateway.journal.anchor.base import AnchorFailed, extra


def test_a_library_that_is_there() -> None:
    assert extra("json", "s3") is json


def test_a_library_that_is_missing() -> None:
    with pytest.raises(AnchorFailed, match=r"no_such_library cannot be imported .* pip install 'sluice-gateway\[s3\]'"):
        extra("no_such_library", "s3")
