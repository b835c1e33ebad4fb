r"""Lists, verifies, prunes or exports the checkpoints of a run.

    ssanet checkpoints list --workdir=runs/digits
    ssanet checkpoints verify --workdir=runs/digits
    ssanet checkpoints prune --workdir=runs/digits --keep=1
    ssanet checkpoints export --workdir=runs/digits --checkpoint=best \
        --out=runs/digits_best

list shows each checkpoint with its size and evaluation. verify compares every file with its
checksum and exits with 1 if one is damaged. prune deletes all but the newest checkpoints and the
best, unless one of these is damaged. export copies one checkpoint, with the config and the metrics
up to it, to a new workdir that can be evaluated, converted or resumed.
"""

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from absl import flags
from etils import epath

from ssanet_jax import runtime
from ssanet_jax.errors import ConfigError, file_errors, reason_of
from ssanet_jax.output import timestamp
from ssanet_jax.tables import FORMATS, Column, Table, show
from ssanet_jax.tools import cli

if TYPE_CHECKING:
    from ssanet_jax.training.checkpoints.reader import CheckpointReader
    from ssanet_jax.training.storage.workdir import Workdir

FLAGS = flags.FLAGS

_VERBS = {
    'list': ('workdir', 'format'),
    'verify': ('workdir',),
    'prune': ('workdir', 'keep'),
    'export': ('workdir', 'checkpoint', 'out'),
}


def define_flags() -> None:
    flags.DEFINE_string('workdir', None, 'Workdir of the run.', required=True)
    flags.DEFINE_enum('format', 'table', FORMATS, 'list: how to print.')
    flags.DEFINE_integer('keep', None, 'prune: how many of the newest to keep.', lower_bound=1)
    flags.DEFINE_string('checkpoint', 'best', 'export: best, latest or a step.')
    flags.DEFINE_string('out', None, 'export: the new workdir, which must not exist.')


def main(arguments: list[str]) -> None:
    runtime.use_cpu()  # Files need no accelerator.
    verb = arguments[0] if len(arguments) == 1 else None
    if verb not in _VERBS:
        received = ' '.join(arguments) or 'nothing'
        verbs = ','.join(_VERBS)
        raise ConfigError(f'Usage: checkpoints {{{verbs}}} --workdir=WORKDIR; got {received}.')
    for name in ('format', 'keep', 'checkpoint', 'out'):
        if FLAGS[name].present and name not in _VERBS[verb]:
            raise ConfigError(f'--{name} has no effect with {verb}; omit it.')
    from ssanet_jax.training.storage.workdir import Workdir

    workdir = Workdir(FLAGS.workdir)
    workdir.read_config()  # raises where there is no run
    {'list': _list, 'verify': _verify, 'prune': _prune, 'export': _export}[verb](workdir)


def _list(workdir: 'Workdir') -> None:
    from ssanet_jax.training.checkpoints.reader import CheckpointReader

    rows = []
    with CheckpointReader(workdir) as checkpoints:
        for step in checkpoints.steps():
            with contextlib.suppress(FileNotFoundError):  # the run has just deleted it
                rows.append(_row(checkpoints, step))
    columns = [
        Column('step'),
        Column('written', left=True),
        Column('MB', lambda size: f'{size / 1e6:,.1f}'),
        Column('top-1', lambda top1: f'{top1:.2f} %'),
        Column('loss', lambda loss: f'{loss:.4f}'),
        Column('best', lambda best: 'yes' if best else 'no', left=True),
    ]
    show([Table(str(workdir.checkpoints), columns, rows)], FLAGS.format)


def _row(checkpoints: 'CheckpointReader', step: int) -> tuple[Any, ...]:
    folder = checkpoints.directory / str(step)
    evaluation = checkpoints.evaluations.get(step, {})
    return (
        step,
        timestamp(folder.stat().mtime),
        _size(folder),
        evaluation.get('top1'),
        evaluation.get('loss'),
        step == checkpoints.best_step(),
    )


def _size(folder: epath.Path) -> int:
    return sum(
        _size(path) if path.is_dir() else int(path.stat().length) for path in folder.iterdir()
    )


def _verify(workdir: 'Workdir') -> None:
    from ssanet_jax.training.checkpoints.reader import CheckpointReader

    steps, damaged = workdir.checkpoint_steps(), 0
    with CheckpointReader(workdir) as checkpoints:
        for step in steps:
            reason = checkpoints.damage(step)
            if reason and step not in workdir.checkpoint_steps():
                print(f'{step}: deleted meanwhile by the run', flush=True)
                continue
            damaged += bool(reason)
            print(f'{step}: {f"damaged: {reason}" if reason else "intact"}', flush=True)
    print(f'{len(steps)} checkpoints, {damaged} damaged')
    sys.exit(1 if damaged else 0)


def _prune(workdir: 'Workdir') -> None:
    from ssanet_jax.training.checkpoints.reader import listed
    from ssanet_jax.training.checkpoints.writer import Checkpoints

    if FLAGS.keep is None:
        raise ConfigError('Usage: checkpoints prune --workdir=... --keep=NUMBER_OF_NEWEST.')
    with workdir.lock(), Checkpoints(workdir, keep=FLAGS.keep) as checkpoints:
        deleted = checkpoints.prune(verify=True)
        print(f'Deleted {listed(deleted)}; kept {listed(checkpoints.steps())}.')


def _export(workdir: 'Workdir') -> None:
    from ssanet_jax.training.checkpoints.integrity import damage
    from ssanet_jax.training.checkpoints.reader import read_checkpoint
    from ssanet_jax.training.storage.atomic_io import write_text
    from ssanet_jax.training.storage.workdir import Workdir

    if not FLAGS.out:
        raise ConfigError('Usage: checkpoints export --workdir=... --out=NEW_WORKDIR.')
    out = Workdir(FLAGS.out)
    if out.path.exists():
        raise ConfigError(f'--out={out} exists; choose a new folder.')
    out.check_name()

    def copy(checkpoints: 'CheckpointReader', step: int) -> int:
        try:
            _copy(checkpoints.directory / str(step), out.checkpoints / str(step))
            workdir.config.copy(out.config)
            for path, target in ((workdir.classes, out.classes), (workdir.starts, out.starts)):
                if path.exists():
                    path.copy(target)
            write_text(out.metrics, workdir.metrics_up_to(step))
        except file_errors() as error:
            with contextlib.suppress(*file_errors()):
                out.path.rmtree()
            checkpoints.check_exists(step)
            reason = reason_of(error)
            raise ConfigError(f'--out={out} cannot be written: {reason}.') from error
        return step

    step = read_checkpoint(workdir, FLAGS.checkpoint, copy)
    if reason := damage(out.checkpoints / str(step)):
        raise ConfigError(f'{out} does not read back as it was written: {reason} Check the disk.')
    print(f'{out}: step {step} of {workdir}, read back and equal.')


def _copy(source: epath.Path, target: epath.Path) -> None:
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.is_dir():
            _copy(path, target / path.name)
        else:
            path.copy(target / path.name)


if __name__ == '__main__':
    cli.run(main, define_flags)
