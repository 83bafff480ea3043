"""The one exception a user can cause."""


class Fault(Exception):
    """A user's mistake, told in plain words: what is wrong, the value found, the choices or the remedy."""
