"""What can be asked again smaller is not what has to be waited for."""

from gateway.control.database.trouble import BadValue, DatabaseTrouble, TooMuchAsked


def test_a_bad_value_is_no_trouble_of_the_database() -> None:
    assert issubclass(TooMuchAsked, DatabaseTrouble)
    assert not issubclass(BadValue, DatabaseTrouble)
