"""What a checkpoint's files must hold: written with them, compared before they are read."""

import dataclasses
import errno
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from ssanet_jax.errors import RunError

_NAME = 'checksums.json'
_ITEM = 'default'  # Orbax's name for the only item of a checkpoint

# Of reading: that a file is not what it was. Others, as of rights or of a network, may pass.
_DAMAGE = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EIO)


class CheckedHandler(ocp.StandardCheckpointHandler):
    """Orbax's handler of trees, which adds the SHA-256 of each file to what it writes.

    Orbax calls `finalize` when all files are written and before the checkpoint gets its name, so
    that there is no checkpoint without them.
    """

    async def async_save(self, directory: Any, *, args: 'Save') -> Any:
        self._step = args.step
        return await super().async_save(directory, args=args)

    def finalize(self, directory: epath.Path) -> None:
        super().finalize(directory)
        if jax.process_index() == 0:
            written = {'step': self._step, 'files': _digests(directory)}
            (directory / _NAME).write_text(_text(written))


@ocp.args.register_with_handler(CheckedHandler, for_save=True)
@dataclasses.dataclass
class Save(ocp.args.StandardSave):
    """What `CheckedHandler` saves, and the step that it is of."""

    step: int = 0


@ocp.args.register_with_handler(CheckedHandler, for_restore=True)
@dataclasses.dataclass
class Restore(ocp.args.StandardRestore):
    """What `CheckedHandler` restores."""


def damage(checkpoint: epath.Path) -> str:
    """Which file of a checkpoint's folder is not what was written, and how; '' if none is.

    Raises:
      RunError: it cannot be read now, which says nothing of what it holds.
    """
    folder = checkpoint / _ITEM
    try:
        if not ocp.utils.is_checkpoint_finalized(checkpoint):
            return 'it is unfinished.'
        # Written by Orbax when it is whole, and so without a checksum.
        handlers = json.loads((checkpoint / '_CHECKPOINT_METADATA').read_text())['item_handlers']
        if handlers != {_ITEM: f'{__name__}.{CheckedHandler.__name__}'}:
            return f'it was written by {handlers}.'
        text = (folder / _NAME).read_text()
        expected = json.loads(text)
        if _text(expected) != text:
            return f'{_ITEM}/{_NAME} is not what was written.'
        if expected['step'] != int(checkpoint.name):
            return f'it is the checkpoint of step {expected["step"]}.'
        for name, digest in expected['files'].items():
            if not (folder / name).exists():
                return f'{_ITEM}/{name} is missing.'
            if _digest(folder / name) != digest:
                return f'{_ITEM}/{name} is not what was written.'
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        if isinstance(error, OSError) and error.errno not in _DAMAGE:
            raise RunError(
                f'The checkpoint {checkpoint} cannot be read: {error}. Nothing was changed; run '
                'the same command again when it can be.'
            ) from error
        return f'its files cannot be read ({" ".join(f"{type(error).__name__}: {error}".split())}).'
    return ''


def _text(written: dict[str, Any]) -> str:
    return json.dumps(written, indent=1) + '\n'


def _digests(folder: epath.Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): _digest(path) for path in sorted(_files(folder))}


def _files(folder: epath.Path) -> Iterator[epath.Path]:
    for path in folder.iterdir():
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


def _digest(path: epath.Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
