"""Lists the image files of a folder, and everything else in it with the reason it is left out."""

import itertools
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from pathlib import PurePath
from typing import NamedTuple

from etils import epath

from ssanet_jax.data.decoding.formats import SUFFIXES
from ssanet_jax.errors import ConfigError, file_errors, reason_of
from ssanet_jax.output import printable

# Images in formats that cannot be decoded; the reason says to convert them.
_UNSUPPORTED = frozenset(
    ['.arw', '.cr2', '.dng', '.heic', '.heif', '.jp2', '.jxl', '.nef', '.psd', '.svg']
)
# Of Windows, macOS and network disks; all names that begin with a dot are ignored too.
_SYSTEM = frozenset(
    {
        '$recycle.bin', '#recycle', '#snapshot', '@eadir', '__macosx', '__pycache__',
        'desktop.ini', 'ehthumbs.db', 'lost+found', 'system volume information', 'thumbs.db',
    }
)  # fmt: skip

HIDDEN = 'hidden or system file'


class File(NamedTuple):
    """A file below the root.

    Attributes:
      parts: folders and name.
      reason: why it is left out, or ''. It is then possibly a folder.
    """

    parts: tuple[str, ...]
    reason: str = ''

    @property
    def name(self) -> str:
        return '/'.join(self.parts)


def image_files(root: str) -> tuple[list[File], dict[str, list[str]]]:
    """Returns the images below `root`, sorted, and the names left out by reason.

    The suffix decides whether a file is an image; no file is opened.

    Raises:
      ConfigError: a folder cannot be listed.
    """
    images, left_out = [], defaultdict(list)
    for file in walk(root):
        reason = file.reason or _unreadable_kind(file.parts[-1])
        if reason:
            left_out[reason].append(file.name)
        else:
            images.append(file)
    return sorted(images), dict(left_out)


def class_name(folder: str) -> str:
    """The name of the class of a folder: macOS and Linux spell 'café' in different characters."""
    return printable(unicodedata.normalize('NFC', folder))


def is_hidden(name: str) -> bool:
    return name.startswith('.') or name.lower() in _SYSTEM


def _unreadable_kind(name: str) -> str:
    suffix = PurePath(name).suffix.lower()
    if suffix in SUFFIXES:
        return ''
    if suffix in _UNSUPPORTED:
        return f'{suffix}, which cannot be decoded: convert to JPEG'
    return 'not named like an image'


def walk(root: str, parts: tuple[str, ...] = (), above: tuple[str, ...] = ()) -> Iterator[File]:
    """Yields the files in the folder `parts` of `root`, and what is left out of it, in any order.

    Links are followed; `above` are the real paths around the folder, which end a circle of them.

    Raises:
      ConfigError: a folder cannot be listed.
    """
    folder = os.path.join(root, *parts)
    above = (*above, _real_path(folder))
    for name, kind in _children(folder):
        inside = (*parts, name)
        if is_hidden(name):
            yield File(inside, HIDDEN)
        elif kind != 'folder':
            yield File(inside, kind)
        elif _real_path(os.path.join(folder, name)) in above:
            yield File(inside, 'link to a folder around it')
        else:
            below = walk(root, inside, above)
            first = next(below, File(inside, 'empty folder'))
            yield from itertools.chain([first], below)


def _children(folder: str) -> list[tuple[str, str]]:
    """Name and kind of each entry: 'folder', '' for a file, or why it is neither."""
    try:
        if '://' in folder:
            return _remote_children(folder)
        with os.scandir(folder) as entries:
            return [(entry.name, _kind(entry)) for entry in entries]
    except file_errors() as error:
        raise ConfigError(
            f'{printable(folder)} cannot be listed: {reason_of(error)}. Grant permission, or move '
            'it elsewhere.'
        ) from error


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_dir():
            return 'folder'
        if entry.is_file():
            return ''
    except OSError:  # a link to itself
        pass
    return 'broken link' if entry.is_symlink() else 'pipe, socket or device'


def _remote_children(folder: str) -> list[tuple[str, str]]:
    """As `_children`; a name with the suffix of an image is taken for a file."""

    def kind(path: epath.Path) -> str:
        is_image = path.suffix.lower() in SUFFIXES  # asking the store takes a request for each
        return 'folder' if not is_image and path.is_dir() else ''

    return [(path.name, kind(path)) for path in epath.Path(folder).iterdir()]


def _real_path(folder: str) -> str:
    return folder if '://' in folder else os.path.realpath(folder)
