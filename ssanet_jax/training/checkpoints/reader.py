"""Reads the checkpoints of a run, verified first."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar

import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from ssanet_jax.errors import ConfigError, RunError, nearest, one_line
from ssanet_jax.training.checkpoints import integrity, trees
from ssanet_jax.training.checkpoints.retention import Retention
from ssanet_jax.training.checkpoints.save_barrier import SaveBarrier
from ssanet_jax.training.steps import TrainState
from ssanet_jax.training.storage.workdir import Workdir

Tree = TypeVar('Tree')
T = TypeVar('T')

_RETRY_S = 20.0


class DeletedError(RunError):
    """A checkpoint was deleted while it was read, as by the run that trains."""


def read_checkpoint(
    workdir: epath.PathLike, which: str, read: Callable[['CheckpointReader', int], T]
) -> T:
    """Returns `read(reader, step)`, called again if the run deletes the checkpoint meanwhile.

    Args:
      workdir: of a run that may be training.
      which: as for `CheckpointReader.find`.
      read: reads a verified checkpoint.

    Raises:
      ConfigError: as `CheckpointReader.find`.
      RunError: the checkpoint cannot be read now.
    """
    give_up = time.monotonic() + _RETRY_S
    while True:
        try:
            with CheckpointReader(workdir) as reader:
                return read(reader, reader.find(which))
        except DeletedError as error:
            if jax.process_count() > 1:  # hosts could read different ones
                raise
            if time.monotonic() > give_up:
                raise RunError(
                    f'{error} So were others for {_RETRY_S:.0f} s: a run trains there and keeps '
                    'few checkpoints. Try again when it has ended, or save less often.'
                ) from error


class CheckpointReader:
    """The checkpoints of a run that may still be training; a context manager that changes nothing.

    Args:
      workdir: of the run. Evaluations, which decide on the best, are read from its metrics.jsonl.
      keep: number of newest checkpoints that `Checkpoints` keeps, in addition to the best.
    """

    _read_only = True

    def __init__(self, workdir: epath.PathLike, *, keep: int = 1):
        self._workdir = workdir if isinstance(workdir, Workdir) else Workdir(workdir)
        folder = self._workdir.checkpoints
        self.directory = folder if '://' in str(folder) else folder.resolve()
        self._retention = Retention(keep)
        self._barrier = SaveBarrier()
        self._manager = self._open()
        for line in self._workdir.read_metrics():  # after listing: all listed may be in it
            if line['split'] == 'eval':
                self.evaluations[line['step']] = line

    def _open(self) -> ocp.CheckpointManager:
        verbosity = logging.get_verbosity()
        if self._read_only:  # Orbax warns about it even if requested
            logging.set_verbosity(logging.ERROR)
        manager = ocp.CheckpointManager(
            self.directory,
            item_handlers=integrity.CheckedHandler(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self._retention,
                todelete_subdir=self._workdir.pruned.name,
                create=False,
                lightweight_initialize=True,  # reads no file that may be damaged
                read_only=self._read_only,
                **self._barrier.options(),
            ),
        )
        logging.set_verbosity(verbosity)
        return manager

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, *exception: object) -> None:
        if kind is None or jax.process_count() == 1:  # Orbax waits for hosts, which may be gone.
            self._manager.close()

    @property
    def evaluations(self) -> dict[int, Mapping[str, Any]]:
        """Metrics of evaluated steps."""
        return self._retention.evaluations

    def steps(self) -> list[int]:
        """Steps of all checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """The best evaluated step that is kept, the latest of equals; None if there is none."""
        return self._retention.best(self.steps())

    def find(self, which: str) -> int:
        """The step of 'best', 'latest' or a number.

        Raises:
          ConfigError: there is no such checkpoint, or it is damaged; the message lists the others.
          DeletedError: it was deleted meanwhile.
        """
        steps = self.steps()
        if not steps:
            raise ConfigError(f'{self.directory} holds no checkpoint; train there first.')
        step = {'best': self.best_step(), 'latest': steps[-1]}.get(which)
        if which == 'best' and step is None:
            raise ConfigError(
                f'No checkpoint in {self.directory} was evaluated; choose --checkpoint=latest.'
            )
        if which.isdigit() and int(which) in steps:
            step = int(which)
        if step is None:
            raise ConfigError(
                f'--checkpoint={which} is not in {self.directory}; choose best, latest or a step; '
                f'nearest: {nearest(which, map(str, steps))}.'
            )
        if reason := self.damage(step):
            self.check_exists(step)
            raise ConfigError(
                f'{self._name(step)} is damaged: {reason} Choose another with --checkpoint; there '
                f'are {listed([other for other in steps if other != step])}.'
            )
        return step

    def damage(self, step: int) -> str:
        """Describes how a checkpoint's files differ from what was written; '' if they do not."""
        if reason := integrity.damage(self.directory / str(step)):
            return reason
        try:
            self._manager.metadata(step)
        except Exception as error:  # Orbax's, about files outside its item's folder
            integrity.check_permanent(self.directory / str(step), error)
            return f'its metadata cannot be read ({one_line(error)}).'
        return ''

    def check_exists(self, step: int) -> None:
        """Raises DeletedError if a checkpoint that was listed is there no more."""
        if step not in self._workdir.checkpoint_steps():
            raise DeletedError(f'{self._name(step)} was deleted while it was read.')

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        """Raises DeletedError or RunError for errors of files that were intact before."""
        try:
            yield
        except ConfigError:
            raise
        except Exception as error:  # Orbax's and TensorStore's, of any kind
            self.check_exists(step)
            integrity.check_permanent(self.directory / str(step), error)
            raise

    def restore(self, step: int, like: Tree) -> Tree:
        """The tree saved at `step`, with the structure, dtypes and shardings of `like`.

        Raises:
          ConfigError: the saved tree differs.
          DeletedError: the checkpoint was deleted meanwhile.
          RunError: it cannot be read now.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        if difference := trees.difference(self._metadata(step), abstract):
            raise ConfigError(
                f'{self._name(step)} is of another model, optimizer or set of metrics: '
                f'{difference}. Use the config that it was trained with.'
            )
        # By name: states of optimizers without arrays leave different trees behind.
        as_saved = trees.fill(self._metadata(step), trees.named_leaves(abstract))
        with self._reading(step):
            saved = self._manager.restore(step, args=integrity.Restore(as_saved))
        return trees.fill(like, trees.named_leaves(saved))

    def fits(self, step: int, like: Tree) -> bool:
        """Whether the tree saved at `step` has the names, shapes and dtypes of `like`."""
        return not trees.difference(self._metadata(step), like)

    def state_fits(self, step: int, state: TrainState) -> bool:
        """As `fits`, of the state alone, whatever sums of metrics were saved with it."""
        return not trees.difference(self._metadata(step)[0], state)

    def model_fits(self, step: int, state: TrainState) -> bool:
        """Whether parameters and statistics saved at `step` have those of `state`."""
        return self.fits(step, self._with_saved_optimizer(step, (state, None)))

    def restore_model(self, step: int, like: tuple[TrainState, Tree]) -> tuple[TrainState, Tree]:
        """As `restore`, but the optimizer's state and the sums of metrics are those of `like`."""
        state, _ = self.restore(step, self._with_saved_optimizer(step, like))
        return dataclasses.replace(state, opt_state=like[0].opt_state), like[1]

    def _with_saved_optimizer(self, step: int, like: tuple[TrainState, Any]) -> Any:
        """`like` with abstract arrays of the saved optimizer's state and sums in their places."""
        (saved, sums), sharding = self._metadata(step), jax.tree.leaves(like)[0].sharding
        saved, sums = trees.abstract((saved['opt_state'], sums), sharding)
        return dataclasses.replace(like[0], opt_state=saved), sums

    def restore_state(self, step: int, like: Tree) -> Tree:
        """The first of the pair saved at `step`, without the sums of metrics; see `restore`."""
        sharding = jax.tree.leaves(like)[0].sharding
        sums = trees.abstract(self._metadata(step)[1], sharding)
        return self.restore(step, (like, sums))[0]

    def _metadata(self, step: int) -> Any:
        with self._reading(step):
            return self._manager.item_metadata(step).tree

    def restore_variables(self, step: int, *, raw: bool = False) -> dict[str, Any]:
        """'params' and 'batch_stats' of `step`, on one device, for any number that saved them.

        Their averages where the run has any, unless asked for the `raw` ones.
        """
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        abstract = trees.abstract(self._metadata(step), sharding)
        with self._reading(step):
            state, _ = self._manager.restore(step, args=integrity.Restore(abstract))
        variables = state if raw else state.get('ema', state)
        return {name: variables[name] for name in ('params', 'batch_stats') if variables[name]}

    def _name(self, step: int) -> str:
        return f'The checkpoint of step {step} in {self.directory}'


def listed(steps: Sequence[int]) -> str:
    """Steps as words: '3, 7', or 'none'."""
    return ', '.join(map(str, steps)) or 'none'
