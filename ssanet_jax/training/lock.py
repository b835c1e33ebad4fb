"""One run at a time in a workdir."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time

from absl import logging
from etils import epath

from ssanet_jax.errors import ConfigError, WorkdirInUseError

# A file system without locks says one of these.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def make_workdir(folder: epath.Path) -> None:
    """Makes the folder, if it is missing; raises ConfigError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f'--workdir={folder} cannot be made a folder: {error}.') from error


class Lock:
    """Holds run.lock in a workdir while it is entered; a file of who holds it, since when.

    The system lets go of it when the process ends, however it ends, so that what a killed run
    leaves is never in the way. Shared file systems pass locks between hosts; object stores, as
    gs://, know none, and nothing is locked there.

    Raises:
      WorkdirInUseError: another run holds it, or one whose host the file system has not given up.
      ConfigError: the folder cannot be written.
    """

    def __init__(self, workdir: epath.Path):
        self._path = os.fspath(workdir / 'run.lock')

    def __enter__(self) -> 'Lock':
        if '://' in self._path:
            return self
        try:
            self._acquire()
            self._file.truncate(0)
            holder = {'host': socket.gethostname(), 'pid': os.getpid(), 'since': time.time()}
            self._file.write(json.dumps(holder))
            self._file.flush()
        except BlockingIOError as error:
            with self._file:
                self._file.seek(0)
                raise WorkdirInUseError(_held(self._path, self._file.read())) from error
        except OSError as error:
            raise ConfigError(
                f'{self._path} cannot be written: {error.strerror}. Make room or allow it, or '
                'choose another --workdir.'
            ) from error
        return self

    def _acquire(self) -> None:
        while True:
            self._file = open(self._path, 'a+')  # noqa: SIM115
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                logging.warning('%s: no locks here; see that no two runs share it.', self._path)
            # Its holder may just have removed the file that was opened.
            if os.path.exists(self._path) and os.path.samestat(
                os.fstat(self._file.fileno()), os.stat(self._path)
            ):
                return
            self._file.close()

    def __exit__(self, *exception: object) -> None:
        if '://' not in self._path:
            with contextlib.suppress(OSError):
                os.remove(self._path)
            self._file.close()


def _held(path: str, text: str) -> str:
    who = 'Another process'
    try:
        holder = json.loads(text)
        minutes = (time.time() - holder['since']) / 60
        who = f'Process {holder["pid"]} on {holder["host"]}, for {minutes:.0f} minutes,'
    except (ValueError, KeyError, TypeError):
        pass  # It has the lock, and has not yet written who it is.
    return f'{who} runs in this workdir and holds {path}; wait for it, stop it, or choose another.'
