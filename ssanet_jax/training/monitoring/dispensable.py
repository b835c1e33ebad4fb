"""Writes that may fail without ending the run."""

from collections.abc import Callable
from typing import TypeVar

from absl import logging

from ssanet_jax.errors import file_errors, one_line

T = TypeVar('T')


def or_warn(what: str, write: Callable[[], T]) -> T | None:
    """Returns `write()`, or None where it fails, which is only logged.

    Args:
      what: names what is written; the warning begins with it.
      write: may raise OSError, TensorFlow's errors, or XLA's RuntimeError.
    """
    try:
        return write()
    except file_errors(RuntimeError) as error:
        logging.warning('%s could not be written: %s', what, one_line(error))
        return None
