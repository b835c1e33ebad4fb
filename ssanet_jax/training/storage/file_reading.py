"""Reads files and folders of a run; what may be read later is not taken for missing."""

import os
import re

from etils import epath

from ssanet_jax.errors import RunError, file_errors, one_line

# Of `stat`. Other errors, as of permissions, of a disk or of a network, say nothing of the file.
MISSING = (FileNotFoundError, NotADirectoryError)


def cannot_read_now(path: epath.Path, error: Exception) -> RunError:
    """The error for a path that may be read later."""
    return RunError(
        f'{path} cannot be read: {one_line(error).rstrip(".")}. Nothing was changed; run the same '
        'command again once it can be read.'
    )


def read_text(path: epath.Path) -> str | None:
    """The text of a file, or None if there is none.

    Raises:
      RunError: it cannot be read now.
      ValueError: it is not UTF-8.
    """
    try:
        return path.read_text()
    except MISSING:
        return None
    except file_errors() as error:
        raise cannot_read_now(path, error) from error


def list_names(folder: epath.Path) -> list[str] | None:
    """The names in a folder, or None if there is no folder; raises RunError."""
    if '://' in os.fspath(folder) and not folder.is_dir():
        return None
    try:
        return [path.name for path in folder.iterdir()]
    except MISSING:
        return None
    except file_errors() as error:
        raise cannot_read_now(folder, error) from error


def error_number(error: BaseException) -> int | None:
    """The system's number of an error of a file, raised by Python or TensorStore; else None."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    if match := re.search(r"os_error_code='(\d+)'", str(error)):
        return int(match[1])
    cause = error.__cause__ or error.__context__
    return error_number(cause) if cause else None
