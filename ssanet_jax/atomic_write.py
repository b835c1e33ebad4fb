"""Atomic writes: a file or folder appears under its name complete, or not at all."""

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

PathT = TypeVar('PathT', bound=Path)


@contextlib.contextmanager
def atomic_write(path: PathT) -> Iterator[PathT]:
    """Yields a temporary sibling of `path` to write to, and renames it to `path` on success.

    The caller makes the sibling a file or a folder; it is removed if the block raises. A file
    at `path` is replaced; a folder must not exist yet.

    Args:
      path: a `pathlib.Path`, or an `epath.Path` for object stores.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / 'a.txt'
    >>> with atomic_write(path) as temporary:
    ...     _ = temporary.write_text('complete')
    >>> path.read_text()
    'complete'
    """
    # Processes of several containers may have the same number.
    writer = f'{socket.gethostname()}.{os.getpid()}'
    temporary = path.with_name(f'{path.name}.{writer}.partial')
    try:
        yield temporary
        temporary.replace(path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)
