"""Expands the image arguments of a command: files, folders, globs and standard input."""

import glob
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ssanet_jax.data.datasets.folder_files import HIDDEN, walk
from ssanet_jax.data.decoding.formats import SUFFIXES, image_format
from ssanet_jax.errors import ConfigError

_SUFFIXES = SUFFIXES | {'.heic'}  # which is not decoded, but reported
_STDIN_BYTES = 2**28


def find(arguments: Sequence[str]) -> list[Path | bytes]:
    """Returns the files of `arguments` in order; folders (recursive) and globs are sorted.

    '-' is standard input: one image, or paths, one per line or NUL-terminated. A path that does
    not exist is returned too, for the reader to report.

    Raises:
      ConfigError: there is no argument, or one matches no image.
    """
    if not arguments:
        raise ConfigError(
            'Name images, folders of them or globs, or - for standard input; --help says more.'
        )
    return [file for argument in arguments for file in _expand(argument)]


def name(file: Path | bytes) -> str:
    """Returns the printable name of a file, '-' for standard input; escapes invalid UTF-8."""
    if isinstance(file, bytes):
        return '-'
    return os.fsencode(file).decode('utf-8', 'backslashreplace')


def _expand(argument: str) -> Sequence[Path | bytes]:
    if argument == '-':
        return _standard_input()
    path = Path(argument)
    if os.path.isdir(argument):
        files = [path.joinpath(*file.parts) for file in walk(argument) if file.reason != HIDDEN]
        images = sorted(
            file for file in files if file.suffix.lower() in _SUFFIXES and not os.path.isdir(file)
        )
        if not images:
            raise ConfigError(
                f'{argument} holds no image ({", ".join(sorted(_SUFFIXES))}); name another folder.'
            )
        return images
    if glob.has_magic(argument) and not os.path.lexists(argument):
        named = sorted(glob.glob(argument, recursive=True))
        matches = [Path(match) for match in named if not os.path.isdir(match)]
        if not matches:
            raise ConfigError(f'{argument} matches no file; correct the pattern.')
        return matches
    return [path]


def _standard_input() -> Sequence[Path | bytes]:
    data = sys.stdin.buffer.read(_STDIN_BYTES)
    if image_format(data):
        return [data]
    text = os.fsdecode(data)
    lines = [line for line in text.split('\0' if '\0' in text else '\n') if line.strip()]
    if not lines:
        raise ConfigError('Standard input is empty; give an image, or paths, one per line.')
    return [Path(line) for line in lines]
