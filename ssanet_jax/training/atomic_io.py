"""Writing that waits out a full or absent disk, and is never seen half done."""

import errno
import os
import re
import shutil
import time
from collections.abc import Callable

import jax
from absl import logging
from etils import epath

from ssanet_jax.errors import SaveError
from ssanet_jax.training import parallel

_AGAIN = 'Make room or give it back, then run the same command again.'
PAUSES = [5.0, 10.0, 20.0, 40.0]  # seconds before each further attempt


def patiently(write: Callable[[], None], what: str, after: Callable[[], str]) -> None:
    """Calls `write` until it works; five times in a bit more than a minute.

    Several hosts try once: they could not tell each other to wait.

    Args:
      write: raises where it cannot write.
      what: what it writes, for messages.
      after: says what a user should know and do if nothing helps.

    Raises:
      SaveError: the last attempt failed too.
    """
    for pause in [*PAUSES, None] if jax.process_count() == 1 else [None]:
        try:
            return write()
        except (OSError, ValueError) as error:  # ValueError: TensorStore's
            if parallel.host_lost(error):
                raise
            reason = _one_line(error)
            if pause is None:
                raise SaveError(f'{what} could not be written: {reason} {after()}') from error
            logging.warning(
                '%s could not be written: %s Trying again in %g s.', what, reason, pause
            )
            time.sleep(pause)


def check_room(folder: epath.Path, size: int) -> None:
    """Raises OSError where `size` bytes more do not fit on the disk of `folder`."""
    if '://' in str(folder):
        return
    free = shutil.disk_usage(folder).free
    if free < size:
        text = (
            f'{os.strerror(errno.ENOSPC)}: {size / 1e6:,.1f} MB are needed, {free / 1e6:,.1f} free'
        )
        raise OSError(errno.ENOSPC, text)


def _one_line(error: Exception) -> str:
    text = ' '.join(str(error).split())
    cause = re.search(r'([^:\[]+) \[os_error_code', text)  # at the end of TensorStore's
    text = cause.group(1).strip() if cause else text[:300]
    return f'{type(error).__name__}: {text.rstrip(".")}.'


def replace_text(path: epath.Path, text: str) -> None:
    """Writes a file so that it is never seen half written; raises SaveError."""

    def write() -> None:
        temporary = path.parent / f'{path.name}.tmp'
        temporary.write_text(text)
        temporary.replace(path)

    patiently(write, str(path), lambda: _AGAIN)


class AppendedFile:
    """A text file to which whole lines are added, also where a disk was full for a while.

    Raises SaveError where it cannot be written, or was removed or cut by others.
    """

    def __init__(self, path: epath.Path, text: str):
        """Begins with `text` in place of what the file held."""
        replace_text(path, text)
        self._path = path
        self._size = len(text.encode())

    def append(self, line: str) -> None:
        def write() -> None:
            size = self._path.stat().length
            if size < self._size:
                raise OSError(f'it had {self._size} bytes and has {size}.')
            if size > self._size:  # a part of this line, from before the disk was full
                os.truncate(self._path, self._size)
            with self._path.open('a') as file:
                file.write(line)
            self._size += len(line.encode())

        patiently(write, str(self._path), lambda: _AGAIN)
