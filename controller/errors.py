"""The one exception a user's mistake raises: its text is one line that names the thing and the remedy."""


class SpecKVError(Exception):
    """A mistake in what was given (file, model, flag, record); the message says what and how to mend it."""
