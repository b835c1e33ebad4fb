"""Checksums of checkpoints, written with their files and compared before they are read."""

import dataclasses
import errno
import glob
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import jax
import orbax.checkpoint as ocp
from etils import epath
from etils.epath.gpath import PosixGPath

from ssanet_jax.errors import ConfigError, SaveError, one_line
from ssanet_jax.training.checkpoints import trees
from ssanet_jax.training.storage.file_reading import cannot_read_now, error_number
from ssanet_jax.training.storage.workdir import Workdir

_NAME = 'checksums.json'
_ITEM = 'default'  # Orbax's name for the only item of a checkpoint
# Orbax records this name in each checkpoint, so it must not change when the class moves.
_HANDLER = 'ssanet_jax.training.checkpoints.integrity.CheckedHandler'
_CHUNK = 2**20  # bytes

# Read errors that mean damage. Others, as of permissions, a disk or a network, may pass.
_DAMAGE = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR)


class LiteralPath(PosixGPath):
    """A path whose own name `glob` takes literally, as `pathlib.Path.glob` does."""

    def glob(self, pattern: str) -> Iterator[Self]:
        if '://' in os.fspath(self):
            yield from super().glob(pattern)
            return
        for path in glob.glob(os.path.join(glob.escape(os.fspath(self)), pattern)):
            yield self._new(path)


class CheckedHandler(ocp.StandardCheckpointHandler):
    """Orbax's handler of trees, which reads back what it wrote and adds the SHA-256 of each file.

    Orbax calls `finalize` after all files are written and before it renames the checkpoint into
    place and deletes older ones, so every complete checkpoint is readable and has its checksums.
    """

    @classmethod
    def typestr(cls) -> str:
        return _HANDLER

    async def async_save(self, directory: Any, *, args: 'Save') -> Any:
        self._step, self._saved = args.step, trees.shapes(args.item)
        return await super().async_save(directory, args=args)

    def finalize(self, directory: epath.Path) -> None:
        super().finalize(LiteralPath(directory))
        if jax.process_index() == 0:
            self._check_readable(directory)
            checksums = {'step': self._step, 'files': _digests(directory)}
            (directory / _NAME).write_text(_text(checksums))

    def _check_readable(self, directory: epath.Path) -> None:
        try:
            found = trees.shapes(self.metadata(directory).tree)
        except Exception as error:  # Orbax's and TensorStore's, of any kind
            raise OSError(f'it does not read back: {one_line(error)}') from error
        if found != self._saved:
            raise OSError('it does not read back as it was written')

    def metadata(self, directory: epath.Path) -> Any:
        return super().metadata(LiteralPath(directory))

    def restore(self, directory: epath.Path, *args: Any, **kwargs: Any) -> Any:
        return super().restore(LiteralPath(directory), *args, **kwargs)


@ocp.args.register_with_handler(CheckedHandler, for_save=True)
@dataclasses.dataclass
class Save(ocp.args.StandardSave):
    """Arguments of a save by `CheckedHandler`: a tree and its step."""

    step: int = 0


@ocp.args.register_with_handler(CheckedHandler, for_restore=True)
@dataclasses.dataclass
class Restore(ocp.args.StandardRestore):
    """Arguments of a restore by `CheckedHandler`."""


def damage(checkpoint: epath.Path) -> str:
    """Describes how a checkpoint's files differ from what was written; '' if they do not.

    Raises:
      RunError: they cannot be read now, which is no sign of damage.
    """
    folder = checkpoint / _ITEM
    try:
        if not ocp.utils.is_checkpoint_finalized(checkpoint):
            return 'it is unfinished.'
        # Written by Orbax after `finalize`, and so without a checksum.
        handlers = json.loads((checkpoint / '_CHECKPOINT_METADATA').read_text())['item_handlers']
        if handlers != {_ITEM: _HANDLER}:
            return f'it was written by {handlers}.'
        text = (folder / _NAME).read_text()
        expected = json.loads(text)
        if _text(expected) != text:
            return f'{_ITEM}/{_NAME} is not what was written.'
        if expected['step'] != int(checkpoint.name):
            return f'it is the checkpoint of step {expected["step"]}.'
        for name, digest in expected['files'].items():
            try:
                if _digest(folder / name) != digest:
                    return f'{_ITEM}/{name} is not what was written.'
            except FileNotFoundError:
                return f'{_ITEM}/{name} is missing.'
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        check_permanent(checkpoint, error)
        return f'its files cannot be read ({one_line(f"{type(error).__name__}: {error}")}).'
    return ''


def check_permanent(checkpoint: epath.Path, error: Exception) -> None:
    """Raises RunError if an error may pass, which is no sign of damage."""
    if error_number(error) not in (None, *_DAMAGE):
        raise cannot_read_now(checkpoint, error) from error


def newest_good(
    workdir: Workdir, damage: Callable[[int], str]
) -> tuple[int | None, dict[int, str]]:
    """The newest checkpoint without damage, if any, and the damage of each newer one.

    Raises:
      ConfigError: all are damaged.
    """
    damaged: dict[int, str] = {}
    for step in reversed(workdir.checkpoint_steps()):
        if not (reason := damage(step)):
            return step, damaged
        damaged[step] = reason
    if damaged:
        reasons = '; '.join(f'{step}: {reason}' for step, reason in damaged.items())
        raise ConfigError(
            f'All checkpoints in {workdir.checkpoints} are damaged ({reasons}). Nothing was '
            'changed; restore a copy, or use a new workdir.'
        )
    return None, {}


def tidy(workdir: Workdir, damaged: Sequence[int]) -> None:
    """Moves damaged checkpoints away and removes unfinished ones, on the first host.

    Raises:
      SaveError: the file system refuses.
    """
    if jax.process_index() != 0:
        return
    try:
        remove_unfinished(workdir.checkpoints)
        for step in damaged:
            workdir.damaged.mkdir(exist_ok=True)
            number = sum(path.name.split('-')[0] == str(step) for path in workdir.damaged.iterdir())
            name = f'{step}-{number}' if number else str(step)
            (workdir.checkpoints / str(step)).rename(workdir.damaged / name)
    except OSError as error:
        raise SaveError(
            f'{workdir.checkpoints} cannot be cleared of damaged and unfinished checkpoints: '
            f'{one_line(error)}. Grant permission or reconnect the disk, then run the same command '
            'again.'
        ) from error


def remove_unfinished(folder: epath.Path) -> None:
    """Removes the checkpoints whose saves, or whose deletion, were interrupted."""
    Workdir(folder.parent).pruned.rmtree(missing_ok=True)
    for path in folder.iterdir():
        if path.is_dir() and ocp.utils.is_tmp_checkpoint(path):
            path.rmtree(missing_ok=True)


def _text(checksums: dict[str, Any]) -> str:
    return json.dumps(checksums, indent=1) + '\n'


def _digests(folder: epath.Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): _digest(path) for path in sorted(_files(folder))}


def _files(folder: epath.Path) -> Iterator[epath.Path]:
    for path in folder.iterdir():
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


def _digest(path: epath.Path) -> str:
    digest = hashlib.sha256()
    with path.open('rb') as file:  # of an object store without the `readinto` of file_digest
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
