"""How the database fails, in terms that whoever asks can act on, whichever database it is."""


class DatabaseTrouble(Exception):
    """It is down, full, held, damaged or not of our version: the same again later. The message names the fix."""


class TooMuchAsked(DatabaseTrouble):
    """A question took longer than it may; a smaller one would be answered."""


class BadValue(Exception):
    """It can never hold a value that it was given."""
