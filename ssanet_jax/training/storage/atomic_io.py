"""Atomic file writes, retried while the disk is full or unavailable."""

import errno
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from typing import Any

import jax
from absl import logging
from etils import epath

from ssanet_jax.atomic_write import atomic_write
from ssanet_jax.errors import SaveError, file_errors
from ssanet_jax.training.multihost import hosts

RETRY_DELAYS_S = (5.0, 10.0, 20.0, 40.0)

_MAKE_ROOM = 'Free some space or reconnect the disk, then run the same command again.'


def retry_with_backoff(write: Callable[[], None], name: str, remedy: Callable[[], str]) -> None:
    """Calls `write` until it succeeds: five attempts in a little over a minute.

    On several hosts there is one attempt only: one host cannot tell the others to wait.

    Args:
      write: raises `file_errors`, or TensorStore's ValueError, if it cannot write.
      name: of the file or checkpoint, for messages.
      remedy: returns what the error should tell the user to do.

    Raises:
      SaveError: the last attempt failed.
    """
    for delay in (*RETRY_DELAYS_S, None) if jax.process_count() == 1 else (None,):
        try:
            return write()
        except file_errors(ValueError) as error:
            if hosts.host_lost(error):
                raise
            reason = write_error(error)
            if delay is None:
                raise SaveError(f'{name} could not be written: {reason} {remedy()}') from error
            logging.warning('%s could not be written: %s Retrying in %g s.', name, reason, delay)
            time.sleep(delay)


def write_error(error: Exception) -> str:
    """One line of an error of the file system or of TensorStore, which puts the cause last."""
    text = ' '.join(str(error).split())
    cause = re.search(r'([^:\[]+) \[os_error_code', text)
    text = cause.group(1).strip() if cause else text[:300]
    return f'{type(error).__name__}: {text.rstrip(".")}.'


def check_room(folder: epath.Path, size: int) -> None:
    """Raises OSError if the disk of `folder` has less than `size` bytes free."""
    if '://' in str(folder):
        return
    free = shutil.disk_usage(folder).free
    if free < size:
        text = (
            f'{os.strerror(errno.ENOSPC)}: {size / 1e6:,.1f} MB are needed, {free / 1e6:,.1f} free'
        )
        raise OSError(errno.ENOSPC, text)


def write_json(path: epath.Path, value: Any, *, indent: int = 2) -> None:
    """Replaces a JSON file atomically, retried on a full disk; raises SaveError."""
    write_text(path, json.dumps(value, indent=indent) + '\n')


def write_text(path: epath.Path, text: str) -> None:
    """Replaces a text file atomically, retried on a full disk; raises SaveError."""

    def write() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text(text)

    retry_with_backoff(write, str(path), lambda: _MAKE_ROOM)


class AtomicAppender:
    """Appends complete lines to a text file, retried while the disk is full.

    Args:
      path: the file.
      text: replaces what the file holds.

    Raises:
      SaveError: it cannot be written, or another process removed or truncated it.
    """

    def __init__(self, path: epath.Path, text: str):
        write_text(path, text)
        self._path = path
        self._size = len(text.encode())

    def append(self, line: str) -> None:
        def write() -> None:
            size = self._path.stat().length
            if size < self._size:
                raise OSError(f'it had {self._size} bytes and has {size}.')
            if size > self._size:  # the beginning of this line, from when the disk was full
                os.truncate(self._path, self._size)
            with self._path.open('a') as file:
                file.write(line)
            self._size += len(line.encode())

        retry_with_backoff(write, str(self._path), lambda: _MAKE_ROOM)
