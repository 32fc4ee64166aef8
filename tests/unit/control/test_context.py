"""The process layer hands control what control says it needs, and so does the fake the tests use."""

import pytest

from gateway.control.context import Context
from gateway.process.control import ControlContext
from gateway.process.settings import ServeSettings
from tests.fakes.control_context import FakeContext

NAMES = {name for name in vars(Context) if not name.startswith("_")}


def accepts(context: Context) -> Context:
    return context


def real(context: ControlContext) -> Context:
    """Checked by mypy: a drift between the two layers does not pass `make check`."""
    return accepts(context)


def fake(context: FakeContext) -> Context:
    return accepts(context)


@pytest.mark.parametrize("kind", [ControlContext, FakeContext])
def test_everything_control_uses_is_there(kind: type) -> None:
    assert set(dir(kind)) | set(kind.__annotations__) >= NAMES


def test_the_settings_control_reads_are_there() -> None:
    assert {"config", "overrides", "state_dir"} <= set(ServeSettings.__dataclass_fields__)
