"""Writes what a run can do without."""

from collections.abc import Callable
from typing import TypeVar

from absl import logging

from ssanet_jax.errors import one_line

T = TypeVar('T')


def or_warn(what: str, write: Callable[[], T]) -> T | None:
    """Returns `write()`, or None where it fails, which is only logged.

    Args:
      what: is written, at the beginning of the warning.
      write: raises OSError, or RuntimeError, which is XLA's.
    """
    try:
        return write()
    except (OSError, RuntimeError) as error:
        logging.warning('%s could not be written: %s', what, one_line(error))
        return None
