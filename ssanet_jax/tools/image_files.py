"""The images that a user names on a command line: files, folders, globs and standard input."""

import glob
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ssanet_jax.errors import ConfigError

# Also kinds that are not decoded, which are reported, not passed over in silence.
_SUFFIXES = {'.bmp', '.gif', '.heic', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp'}
_MAGIC = (b'\xff\xd8\xff', b'\x89PNG')
_STDIN_BYTES = 2**28


def find(arguments: Sequence[str]) -> list[Path | bytes]:
    """What `arguments` name, in their order; folders and globs sorted, folders to their depths.

    '-' is standard input: one image, or the paths of some, one a line or ended by NUL. A path that
    does not exist is returned all the same, for whoever reads it to report.

    Raises:
      ConfigError: there is no argument, or one stands for no image at all.
    """
    if not arguments:
        raise ConfigError(
            'Name images, folders of them or globs, or - for standard input; --help says more.'
        )
    return [file for argument in arguments for file in _expand(argument)]


def name(file: Path | bytes) -> str:
    """What to call it in a result, in UTF-8 whatever its bytes are."""
    if isinstance(file, bytes):
        return '-'
    return os.fsencode(file).decode('utf-8', 'backslashreplace')


def _expand(argument: str) -> Sequence[Path | bytes]:
    if argument == '-':
        return _standard_input()
    path = Path(argument)
    if os.path.isdir(argument):
        inside = (p for p in path.rglob('*') if p.suffix.lower() in _SUFFIXES)
        found = sorted(p for p in inside if not os.path.isdir(p))
        if not found:
            raise ConfigError(f'{argument} holds no image: no {", ".join(sorted(_SUFFIXES))}.')
        return found
    if glob.has_magic(argument) and not os.path.lexists(argument):
        named = sorted(glob.glob(argument, recursive=True))
        matches = [Path(match) for match in named if not os.path.isdir(match)]
        if not matches:
            raise ConfigError(f'{argument} matches no file; correct the pattern.')
        return matches
    return [path]


def _standard_input() -> Sequence[Path | bytes]:
    data = sys.stdin.buffer.read(_STDIN_BYTES)
    if data.startswith(_MAGIC):
        return [data]
    text = os.fsdecode(data)
    lines = [line for line in text.split('\0' if '\0' in text else '\n') if line.strip()]
    if not lines:
        raise ConfigError('Standard input is empty; give an image, or paths, one a line.')
    return [Path(line) for line in lines]
