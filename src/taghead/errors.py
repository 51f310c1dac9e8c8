"""Errors that a user can mend: the message names the file, the rule and the value."""


class DataError(ValueError):
    """A file that the user gave, or an entry in it, cannot be used as asked.

    The message is one line, ``<path>: <reason>``. It takes a single string, so that it keeps its
    type when a data-loading process hands it over.
    """


class VideoError(DataError):
    """A video that cannot be opened or decoded as asked."""
