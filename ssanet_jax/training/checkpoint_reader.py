"""Reads the checkpoints of a run, verified first."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeVar

import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from ssanet_jax.errors import ConfigError, nearest
from ssanet_jax.training import checkpoint_integrity
from ssanet_jax.training.retention import Retention
from ssanet_jax.training.steps import TrainState
from ssanet_jax.training.workdir import Workdir

Tree = TypeVar('Tree')


class CheckpointReader:
    """The checkpoints of a run that may still be training; a context manager that changes nothing.

    Args:
      workdir: of the run. Evaluations, which decide on the best, are read from its metrics.jsonl.
    """

    _read_only = True

    def __init__(self, workdir: epath.PathLike, *, keep: int = 1):
        self._workdir = Workdir(epath.Path(os.fspath(workdir)).resolve())
        self.directory = self._workdir.checkpoints
        lines = self._workdir.read_metrics()
        evaluations: dict[int, Mapping[str, Any]] = {
            line['step']: line for line in lines if line['split'] == 'eval'
        }
        self._retention = Retention(keep, evaluations)
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        verbosity = logging.get_verbosity()
        if self._read_only:  # Orbax warns about it even if requested
            logging.set_verbosity(logging.ERROR)
        manager = ocp.CheckpointManager(
            self.directory,
            item_handlers=checkpoint_integrity.CheckedHandler(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self._retention,
                create=False,
                lightweight_initialize=True,  # reads no file that may be damaged
                read_only=self._read_only,
                multiprocessing_options=_barriers_that_time_out(),
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
        """The best evaluated step that is kept, or None; of equals the latest."""
        return self._retention.best(self.steps())

    def find(self, which: str) -> int:
        """The step of 'best', 'latest' or a number.

        Raises:
          ConfigError: there is no such checkpoint, or it is damaged; the message lists the others.
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
            raise ConfigError(
                f'{self._name(step)} is damaged: {reason} Choose another with --checkpoint; there '
                f'are {listed([other for other in steps if other != step])}.'
            )
        return step

    def damage(self, step: int) -> str:
        """Describes how a checkpoint's files differ from what was written; '' if they do not."""
        if reason := checkpoint_integrity.damage(self.directory / str(step)):
            return reason
        try:
            self._manager.metadata(step)
        except Exception as error:  # Orbax's, about files outside its item's folder
            return f'its metadata cannot be read ({" ".join(str(error).split())}).'
        return ''

    def restore(self, step: int, like: Tree) -> Tree:
        """The tree saved at `step`, with the structure, dtypes and shardings of `like`.

        Raises:
          ConfigError: the saved tree differs.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        if difference := self._difference(step, abstract):
            raise ConfigError(
                f'{self._name(step)} is of another model, optimizer or set of metrics: '
                f'{difference}. Use the config that it was trained with.'
            )
        return self._manager.restore(step, args=checkpoint_integrity.Restore(abstract))

    def fits(self, step: int, like: Tree) -> bool:
        """Whether the tree saved at `step` has the names, shapes and dtypes of `like`."""
        return not self._difference(step, like)

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
        saved, sums = self._abstract((saved['opt_state'], sums), sharding)
        return dataclasses.replace(like[0], opt_state=saved), sums

    def _difference(self, step: int, like: Any) -> str:
        """The first array of `like` that differs from the saved one, or ''."""
        expected, saved = _shapes(like), _shapes(self._metadata(step))
        for name in sorted(expected.keys() | saved.keys()):
            if expected.get(name) != saved.get(name):
                return (
                    f'{name} was {saved.get(name, "absent")} and is {expected.get(name, "absent")}'
                )
        return ''

    def restore_state(self, step: int, like: Tree) -> Tree:
        """The first of the pair saved at `step`, without the sums of metrics; see `restore`."""
        sharding = jax.tree.leaves(like)[0].sharding
        sums = self._abstract(self._metadata(step)[1], sharding)
        return self.restore(step, (like, sums))[0]

    def _abstract(self, metadata: Any, sharding: jax.sharding.Sharding) -> Any:
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            metadata,
            is_leaf=lambda leaf: hasattr(leaf, 'dtype'),
        )

    def _metadata(self, step: int) -> Any:
        return self._manager.item_metadata(step).tree

    def restore_variables(self, step: int) -> dict[str, Any]:
        """'params' and 'batch_stats' of `step`, on one device, for any number that saved them."""
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        abstract = self._abstract(self._metadata(step), sharding)
        state, _ = self._manager.restore(step, args=checkpoint_integrity.Restore(abstract))
        return {name: state[name] for name in ('params', 'batch_stats') if state[name]}

    def _name(self, step: int) -> str:
        return f'The checkpoint of step {step} in {self.directory}'


def _barriers_that_time_out() -> ocp.options.MultiprocessingOptions:
    """Makes Orbax use JAX's barriers, as it does for named hosts only; collectives wait forever."""
    count = jax.process_count()
    return ocp.options.MultiprocessingOptions(
        active_processes=set(range(count)) if count > 1 else None
    )


def listed(steps: Sequence[int]) -> str:
    """Steps as words: '3, 7', or 'none'."""
    return ', '.join(map(str, steps)) or 'none'


def _shapes(tree: Any) -> dict[str, str]:
    """{'0/params/conv1/kernel': 'float32[3,3,3,16]', ...}."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: hasattr(x, 'dtype'))
    return {
        jax.tree_util.keystr(path, simple=True, separator='/'): (f'{leaf.dtype}{list(leaf.shape)}')
        for path, leaf in leaves
    }
