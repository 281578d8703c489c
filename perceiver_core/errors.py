"""The root of all errors that are meant for people: one `except PerceiverError` meets every one of them."""


class PerceiverError(Exception):
    """Raised by way of its subclasses, each with what was expected, what came, and what to do next.

    Subclasses name a builtin as their second base where callers, or Hugging Face's, expect that one.
    """
