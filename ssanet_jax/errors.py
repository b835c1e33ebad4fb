"""Errors that end a run, each with the exit code that docs/launch.md lists."""

import difflib
import sys
from collections.abc import Iterable, Sequence


class ConfigError(ValueError):
    """A config, flag or input that cannot be used; the message is one line with the remedy."""

    exit_code = 2


class DataFileError(ConfigError):
    """Data files that must be repaired or removed before the run can continue.

    Attributes:
      files: their names, as printed.
    """

    def __init__(self, message: str, files: Sequence[str] = ()):
        super().__init__(message)
        self.files = tuple(files)


class RunError(Exception):
    """A run that cannot continue; the message is one line with the remedy."""

    exit_code = 1


class DivergedError(RunError):
    """A step's loss or gradient is not finite, or its loss is above `config.max_loss`."""

    exit_code = 3


class HostLostError(RunError):
    """Another host of the run is gone."""

    exit_code = 69


class SaveError(RunError):
    """A checkpoint or a metrics line could not be written."""

    exit_code = 74


class WorkdirInUseError(RunError):
    """Another run has this workdir."""

    exit_code = 73


class StoppedError(RunError):
    """A signal stopped the run after a save; the same command resumes it."""

    exit_code = 75


def file_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """What file operations may raise: OSError, TensorFlow's errors if it is loaded, and `others`.

    TensorFlow reads tfrecord files and, where it is installed, reads and writes buckets.
    """
    tf = sys.modules.get('tensorflow')
    return (OSError, *([tf.errors.OpError] if tf else []), *others)


def reason_of(error: BaseException) -> str:
    """Why a file operation failed, without the path that an OSError's message repeats."""
    return (getattr(error, 'strerror', None) or one_line(error)).rstrip('.')


def one_line(error: BaseException | str, limit: int = 300) -> str:
    r"""The message of an error on one line, cut after `limit` characters.

    >>> one_line(ValueError('two\n  lines'))
    'two lines'
    """
    return ' '.join(str(error).split())[:limit]


def nearest(name: str, known: Iterable[str]) -> str:
    """The three of `known` that are spelled most like `name`.

    >>> nearest('resnt18', ['resnet18', 'resnet34', 'vgg11', 'resnet20'])
    'resnet18, resnet34, resnet20'
    """
    return ', '.join(difflib.get_close_matches(name, list(known), n=3, cutoff=0))
