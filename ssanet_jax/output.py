"""Text for terminals and logs: names are escaped, and what cannot be written is dropped."""

import contextlib
import io
import os
import re
import select
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO, cast

from absl import logging

_PATIENCE_S = 2.0  # to wait for a reader that is behind; once, until it reads again
_CHUNK = 512  # characters of at most 4 bytes; any pipe with room takes as much at once

# Control characters, line separators, marks that reorder text, and undecodable bytes.
_UNPRINTABLE = re.compile('[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]')


def printable(name: object) -> str:
    r"""The name of a file or class on one line, with unprintable characters escaped.

    >>> printable('\x1b[2Jcat\n.png')
    '\\x1b[2Jcat\\n.png'
    >>> printable(os.fsdecode(b'caf\xe9.png'))
    'caf\\xe9.png'
    """
    return _UNPRINTABLE.sub(_escaped, str(name))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8
        return f'\\x{code - 0xDC00:02x}'
    return match[0].encode('unicode_escape').decode()


def timestamp(seconds: float | None = None) -> str:
    """A time as ISO 8601 in UTC, to the second; by default now.

    >>> timestamp(0)
    '1970-01-01 00:00:00 UTC'
    """
    return time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime(seconds))


@contextlib.contextmanager
def lossy_output() -> Iterator[None]:
    """Replaces sys.stdout and sys.stderr by streams that cannot end or stop a run.

    Text is dropped if its reader is gone or has not read for two seconds, as a paused terminal,
    or if the disk is full. The other stream reports it once. Streams that are no files, as in
    notebooks, remain.
    """
    before, handler = (sys.stdout, sys.stderr), logging.get_absl_handler().python_handler
    log_before = handler.stream
    sys.stdout, sys.stderr = map(lossy, before)
    if log_before is before[1]:
        handler.setStream(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        handler.setStream(log_before)


def lossy(stream: TextIO | None) -> TextIO:
    """A stream that writes to the file of `stream` and raises no errors.

    `stream` itself if it is no file; a stream to nowhere for None, which stands for one that was
    closed before Python started.
    """
    if stream is None:
        return io.StringIO()
    try:
        fd = stream.fileno() if isinstance(stream, io.TextIOWrapper) else None
    except (OSError, ValueError):
        fd = None
    return stream if fd is None else cast(TextIO, _LossyStream(stream, fd))


class _LossyStream(io.TextIOBase):
    """Writes to a file descriptor, without a buffer; reports the first error on another stream."""

    def __init__(self, stream: TextIO, fd: int):
        self._stream, self._fd = stream, fd
        self._patience, self._reported = _PATIENCE_S, False
        self._lock = threading.Lock()  # a progress bar writes from its own thread

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return self._stream.isatty()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        error: Exception | None = None
        with self._lock:
            try:
                self._stream.flush()  # what was printed before
                for start in range(0, len(text), _CHUNK):
                    self._write(text[start : start + _CHUNK])
            except (OSError, ValueError) as caught:  # ValueError: the stream was closed
                error = caught
        if error and not self._reported:
            self._report(error)
        return len(text)

    def _write(self, text: str) -> None:
        data = text.encode(self.encoding, 'backslashreplace')
        while data:
            poll = select.poll()
            poll.register(self._fd, select.POLLOUT)
            if not poll.poll(1000 * self._patience):
                self._patience = 0.0
                raise TimeoutError('its reader is not reading')
            data = data[os.write(self._fd, data) :]
        self._patience = _PATIENCE_S

    def _report(self, error: Exception) -> None:
        self._reported = True
        name, other = ('output', sys.stderr) if self._fd == 1 else ('error', sys.stdout)
        if isinstance(other, _LossyStream):
            other.write(f'Standard {name} cannot be written: {error}. The run continues.\n')


def open_standard_streams() -> None:
    """Opens closed standard streams on /dev/null.

    The next files opened would take their descriptors, and libraries would print into them.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor


def print_error(text: str) -> None:
    """Prints an error on one line of stderr, after the name of the command."""
    line = printable(' '.join(text.splitlines()))
    lossy(sys.stderr).write(f'{Path(sys.argv[0]).name}: {line}\n')
