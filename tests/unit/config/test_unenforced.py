"""What has no effect yet is refused by name, and nothing is both refused and accepted."""

import pytest

from gateway.config import unenforced
from gateway.config.spec import fields


@pytest.mark.parametrize("struct", list(unenforced.SETTINGS))
def test_a_row_leaves_the_table_when_its_setting_is_enforced(struct: type) -> None:
    assert not unenforced.SETTINGS[struct] & fields(struct).keys()


def test_the_promised_names_are_known() -> None:
    names = set().union(*unenforced.SETTINGS.values())
    assert {"limits", "policy", "inspection", "cache", "hedging"} <= names


def test_unenforced_values_belong_to_settings_that_exist() -> None:
    for struct, name, value in unenforced.VALUES:
        assert value not in fields(struct)[name].spec.choices
