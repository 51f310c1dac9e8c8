"""Errors that a user can mend: the message names the file, the rule and the value."""


class DataError(ValueError):
    """A file that the user gave, or an entry in it, cannot be used as asked.

    The message is one line, ``<path>: <reason>``. It takes a single string, so that it keeps its
    type when a data-loading process hands it over.
    """


class VideoError(DataError):
    """A video that cannot be opened or decoded as asked."""


def one_line(error: BaseException) -> str:
    """An error in one line: the innermost one's, where libraries have wrapped it."""
    text = str(error)
    if "DataLoader worker" in text:  # it arrives with its traceback, whose last line says it
        last = text.strip().splitlines()[-1]
        return last.removeprefix(f"{type(error).__module__}.{type(error).__name__}: ")
    while "\n" in str(error).strip():
        inner = error.__cause__ or error.__context__
        if inner is None:
            break
        error = inner
    return " ".join(str(error).split()) or repr(error)
