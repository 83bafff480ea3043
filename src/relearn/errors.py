"""The one exception that a user can cause, and the kinds of it that the code tells apart."""


class UserError(Exception):
    """A mistake of the user's: the message says what is wrong, the value found, and the choices or the remedy."""


class NotFiniteError(UserError):
    """What a network computes is infinite or not a number: nothing can be measured, and its training has diverged."""
