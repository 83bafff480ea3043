"""The one exception that a user can cause, and how values and messages become one line of bounded length."""

import reprlib

LONGEST = 1000  # characters of a message
LONGEST_WORD = 200  # of what stands in it without a space, such as a path

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60
_short.maxlevel = 3


class UserError(Exception):
    """A mistake of the user's: the message says what is wrong, the value found, and the choices or the remedy."""

    def __str__(self) -> str:
        return one_line(super().__str__())


def shown(value: object) -> str:
    """A value as a message shows it: as Python writes it, a long one cut."""
    return _short.repr(value)


def one_line(text: str) -> str:
    """A text of any length as one line that every terminal can show: what is too long loses its middle."""
    words = (_cut(word, LONGEST_WORD) for word in text.split())
    line = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in " ".join(words))
    return _cut(line, LONGEST)


def _cut(text: str, most: int) -> str:
    tail = most // 4
    return text if len(text) <= most else f"{text[: most - tail - 1]}…{text[-tail:]}"
