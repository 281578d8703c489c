"""Calls that are refused, with what is said."""

import pytest


def refuses(text, call, *arguments, error=ValueError, **options):
    with pytest.raises(error, match=text):
        call(*arguments, **options)
