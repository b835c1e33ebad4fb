"""An exclusive lock of a run on its workdir, and of a study on a run."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from typing import IO

from absl import logging
from etils import epath

from ssanet_jax.errors import ConfigError, SaveError, WorkdirInUseError, file_errors, reason_of
from ssanet_jax.training.storage.file_reading import MISSING

# Errors of file systems that do not support locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class Lock:
    """An exclusive lock: a file that names the host, process and time of its holder.

    The system releases it when the process ends, however it ends, so a killed run leaves nothing
    in the way. Shared file systems pass locks between hosts. Object stores such as gs:// have no
    locks: a second holder is not refused, but the first one finds its name in the file.

    Raises:
      WorkdirInUseError: another process holds it.
      ConfigError: the file cannot be written.
    """

    def __init__(self, path: epath.Path):
        self._path = path
        self._file: IO[str] | None = None
        self._holder = ''  # while it is held

    def __enter__(self) -> 'Lock':
        fields = {'host': socket.gethostname(), 'pid': os.getpid(), 'since': time.time()}
        text = json.dumps(fields)
        try:
            if '://' in str(self._path):
                self._path.write_text(text)
            else:
                self._file = self._acquire()
                self._file.truncate(0)
                self._file.write(text)
                self._file.flush()
        except file_errors() as error:
            raise ConfigError(
                f'{self._path} cannot be written: {reason_of(error)}. Free some space or grant '
                'permission, or choose another --workdir.'
            ) from error
        self._holder = text
        return self

    def _acquire(self) -> IO[str]:
        while True:
            file = open(self._path, 'a+')  # noqa: SIM115
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                with file:
                    file.seek(0)
                    raise WorkdirInUseError(_held(self._path, file.read())) from error
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                logging.warning(
                    '%s: no locks on this file system; do not start two runs here.', self._path
                )
            if _is_open_at(file, self._path):  # its holder may just have removed it
                return file
            file.close()

    def check(self) -> None:
        """Does nothing unless the lock is held; raises SaveError if another has its file."""
        if self._holder and (conflict := self._conflict()):
            raise SaveError(
                f'{self._path.parent} no longer belongs to this run: {conflict}. The run stopped '
                'and left it as it is. Move its own folder back and run the same command again, or '
                'use a new workdir.'
            )

    def _conflict(self) -> str:
        """Why the file is not that of this lock, or ''."""
        try:
            if self._file and not _is_open_at(self._file, self._path):
                return f'{self._path.name} was removed, moved or replaced'
            text = self._path.read_text()
        except MISSING:
            return f'{self._path.name} is gone'
        except UnicodeDecodeError:
            text = ''
        except Exception:  # of any file system: it may pass, or be raised by the next write
            return ''
        return '' if text == self._holder else _holder(text) + ' runs there'

    def __exit__(self, *exception: object) -> None:
        if self._holder and not self._conflict():
            with contextlib.suppress(*file_errors()):
                self._path.unlink()
        self._holder = ''
        if self._file:
            self._file.close()


def _is_open_at(file: IO[str], path: epath.Path) -> bool:
    """Whether an open file is the one at `path`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except MISSING:
        return False


def _holder(text: str) -> str:
    """Describes the process that wrote a lock's file."""
    try:
        fields = json.loads(text)
        minutes = (time.time() - fields['since']) / 60
        return f'process {fields["pid"]} on {fields["host"]}, for {minutes:.0f} minutes,'
    except (ValueError, KeyError, TypeError):
        return 'another process'  # which has not written its name yet


def _held(path: epath.Path, text: str) -> str:
    who = _holder(text)
    return (
        f'{who[0].upper()}{who[1:]} runs in this workdir and holds {path}; wait for it, stop it, '
        'or use another.'
    )
