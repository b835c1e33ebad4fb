"""Errors of reading examples, each one line with a remedy."""

import errno
import os
import re
from collections.abc import Iterator
from typing import TypeVar

import numpy as np

from ssanet_jax.data.sources import EncodedBatch, Source
from ssanet_jax.errors import ConfigError, DataFileError, RunError, file_errors

T = TypeVar('T')

# TensorFlow's.
_TRANSIENT = {'UnavailableError', 'DeadlineExceededError', 'AbortedError', 'ResourceExhaustedError'}
_TRANSIENT_TEXTS = [  # which array_record and TensorFlow quote
    os.strerror(number)
    for number in (
        errno.EAGAIN, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE,
        errno.ETIMEDOUT, errno.ECONNRESET, errno.ENOTCONN, errno.EHOSTUNREACH,
    )
]  # fmt: skip


def unreadable(path: object, error: Exception, remedy: str) -> DataFileError | RunError:
    """Returns the error to raise for unreadable data: a RunError if retrying may help."""
    text = re.sub(r'\{\{.*?\}\}|\[Op:.*?\]( name:)?', '', getattr(error, 'message', str(error)))
    text = ' '.join(text.split())
    if type(error).__name__ in _TRANSIENT or any(reason in text for reason in _TRANSIENT_TEXTS):
        return RunError(
            f'{path} cannot be read now: {_sentence(text)} Nothing was lost; run the same command '
            'again.'
        )
    return DataFileError(
        f'{path} cannot be read: {_sentence(text)} Nothing was lost; {remedy}', [str(path)]
    )


def _sentence(text: str) -> str:
    return f'{text[:300].rstrip(". ")}.'


def readable(examples: Iterator[T], path: object, prepare_command: str) -> Iterator[T]:
    """Passes `examples` on, read from `path`; turns errors into a ConfigError or RunError."""
    try:
        yield from examples
    except file_errors(RuntimeError) as error:  # RuntimeError: array_record's
        remedy = (
            f'restore it from a copy, or remove {path} and prepare it again with: {prepare_command}'
        )
        raise unreadable(path, error, remedy) from error


def check_labels(batch: EncodedBatch, source: Source, num_classes: int) -> None:
    """Raises ConfigError if a label is no class of the dataset."""
    outside = np.flatnonzero((batch.label < 0) | (batch.label >= num_classes))
    if outside.size:
        first = outside[0]
        raise ConfigError(
            f'{source.name(int(batch.number[first]))} has label {batch.label[first]}; the dataset '
            f'has classes 0 to {num_classes - 1}. Prepare it again with labels of these classes, '
            'or with more classes.'
        )
