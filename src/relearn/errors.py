"""The one exception that a user can cause."""


class UserError(Exception):
    """A mistake of the user's: the message says what is wrong, the value found, and the choices or the remedy."""
