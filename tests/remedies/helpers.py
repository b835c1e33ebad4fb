"""Provokes an error and returns its message, whose remedy the test then applies."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from ssanet_jax.errors import RunError


def refused(phrase: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """The message, on one line, of the error that a call raises.

    `phrase` is part of it and of the source that raises it; test_catalogue.py finds it there.
    """
    with pytest.raises((ValueError, TypeError, RunError)) as raised:
        call(*arguments, **options)
    message = str(raised.value)
    assert phrase in message
    assert '\n' not in message
    return message


def after(text: str, message: str) -> str:
    """What follows `text` in a message, up to the end of the clause."""
    return re.search(rf'{re.escape(text)}(.*?)(?:[.;](?:\s|$)|$)', message)[1].strip()


def listed(text: str, message: str) -> list[str]:
    """The names that follow `text`: of 'one of 'a', b or c.' a, b and c."""
    names = re.split(r', and |, or |, | and | or ', after(text, message))
    return [name.strip('\'"') for name in names]
