"""Checkpoints through Orbax: saved in the background, verified before they are read."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from ssanet_jax.errors import ConfigError, SaveError
from ssanet_jax.training import checkpoint_integrity, parallel
from ssanet_jax.training.atomic_io import check_room, retry_with_backoff, write_error
from ssanet_jax.training.retention import Retention
from ssanet_jax.training.workdir import Workdir

Tree = TypeVar('Tree')


class Checkpoints:
    """The checkpoints of a run; a context manager that waits for unfinished saves.

    Args:
      workdir: of the run. Evaluations, which decide on the best, are read from its metrics.jsonl.
      keep: number of newest checkpoints to keep, in addition to the best.
      read_only: leaves everything as it is; for reading a run that may still be training.
    """

    def __init__(self, workdir: epath.PathLike, *, keep: int = 1, read_only: bool = False):
        self._workdir = Workdir(epath.Path(os.fspath(workdir)).resolve())
        self.directory = self._workdir.checkpoints
        lines = self._workdir.read_metrics()
        evaluations: dict[int, Mapping[str, Any]] = {
            line['step']: line for line in lines if line['split'] == 'eval'
        }
        self._retention = Retention(keep, evaluations)
        self._saving: int | None = None  # the step whose save runs in the background
        self._read_only = read_only
        if not read_only:
            self.directory.mkdir(parents=True, exist_ok=True)
        self._manager = self._open()

    @property
    def evaluations(self) -> dict[int, Mapping[str, Any]]:
        """Metrics of evaluated steps."""
        return self._retention.evaluations

    def _open(self) -> ocp.CheckpointManager:
        verbosity = logging.get_verbosity()
        if self._read_only:  # Orbax warns about it, even if asked for
            logging.set_verbosity(logging.ERROR)
        manager = ocp.CheckpointManager(
            self.directory,
            item_handlers=checkpoint_integrity.CheckedHandler(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self._retention,
                create=False,
                lightweight_initialize=True,  # reads no file that may be damaged
                read_only=self._read_only,
            ),
        )
        logging.set_verbosity(verbosity)
        return manager

    def __enter__(self) -> 'Checkpoints':
        return self

    def __exit__(self, kind: type | None, *exception: object) -> None:
        if kind is not None and jax.process_count() > 1:
            return  # Orbax would wait for the other hosts, which may be gone.
        try:
            self._manager.close()
        except Exception as error:
            if kind is None:
                raise
            logging.error(
                'The checkpoint of step %s could not be written either: %s', self._saving, error
            )

    def save(self, step: int, tree: Any, *, wait: bool = False) -> None:
        """Saves in the background, or before it returns if asked to `wait`.

        A step that is already saved, or being saved, is not saved again. If the save before
        failed, this one is waited for, so that a disk that stays full ends the run here.

        Raises:
          SaveError: this checkpoint could not be written; on several hosts, or the one before.
        """
        wait = self._previous_failed(step) or wait

        def write() -> None:
            if not self.directory.is_dir():  # Orbax would create it
                raise FileNotFoundError(f'{self.directory} is gone')
            check_room(self.directory, sum(leaf.nbytes for leaf in jax.tree.leaves(tree)))
            try:
                if step not in self._manager.all_steps():
                    self._manager.save(step, args=checkpoint_integrity.Save(tree, step=step))
                    self._saving = step
                if wait:
                    self._manager.wait_until_finished()
            except Exception:
                self._reopen()
                raise

        retry_with_backoff(write, self._name(step), partial(self._remedy, step))

    def _previous_failed(self, step: int) -> bool:
        """Waits for the save in the background; warns if it failed and `step` is another."""
        previous, self._saving = self._saving, None
        try:
            self._manager.wait_until_finished()
            return False
        except (OSError, ValueError) as error:
            if parallel.host_lost(error) or previous is None:
                raise
            reason = write_error(error)
            if jax.process_count() > 1:
                raise SaveError(
                    f'{self._name(previous)} could not be written: {reason} '
                    f'{self._remedy(previous)}'
                ) from error
            outcome = 'retrying' if previous == step else f'saving step {step} in its place'
            logging.warning(
                '%s could not be written: %s Now %s.', self._name(previous), reason, outcome
            )
            self._reopen()
            return True

    def _name(self, step: int) -> str:
        return f'The checkpoint of step {step} in {self.directory}'

    def _remedy(self, step: int) -> str:
        others = [s for s in self._workdir.checkpoint_steps() if s != step]
        return (
            f'The checkpoints of steps {_listed(others)} are unharmed; free some space or bring '
            'the folder back, then run the same command again.'
        )

    def _reopen(self) -> None:
        """Forgets a save that failed."""
        if jax.process_count() == 1:
            with contextlib.suppress(Exception):
                self._manager.close()
            checkpoint_integrity.remove_unfinished(self.directory)
            self._manager = self._open()

    def evaluated(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Records the evaluation of `step`."""
        self.evaluations[step] = metrics

    def prune(self, *, verify: bool = False) -> list[int]:
        """Deletes all but the newest `keep` and the best; returns the steps deleted.

        Raises:
          ConfigError: `verify` found a checkpoint to keep that is damaged; none is deleted then.
        """
        self._manager.wait_until_finished()
        steps = self.steps()
        kept = self._retention.kept(steps)
        for step in sorted(kept) if verify else ():
            if reason := self.damage(step):
                raise ConfigError(
                    f'{self._name(step)}, which would be kept, is damaged: {reason} Move it away '
                    'first; none was deleted.'
                )
        deleted = sorted(set(steps) - kept)
        for step in deleted:
            self._manager.delete(step)
        return deleted

    def steps(self) -> list[int]:
        """Steps of all checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def written(self) -> list[int]:
        """Steps of the complete checkpoints, ascending, once the save in progress has ended."""
        with contextlib.suppress(Exception):  # It could not be written.
            self._manager.wait_until_finished()
        return self._workdir.checkpoint_steps()

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
                f'--checkpoint={which} is not in {self.directory}; choose best, latest or one of '
                f'{_listed(steps)}.'
            )
        if reason := self.damage(step):
            raise ConfigError(
                f'{self._name(step)} is damaged: {reason} Choose another with --checkpoint; there '
                f'are {_listed([other for other in steps if other != step])}.'
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

    def newest_good(self) -> tuple[int | None, dict[int, str]]:
        """Finds the newest undamaged checkpoint, once all hosts agree on it.

        Newer, damaged ones are moved to the workdir's folder damaged/, and unfinished ones removed.

        Returns:
          Its step, or None if there is no checkpoint; and the damage of each newer one.

        Raises:
          ConfigError: all are damaged, or hosts see different ones.
          RunError: they cannot be read now.
        """
        find = partial(checkpoint_integrity.newest_good, self._workdir, self.damage)
        good, damaged = parallel.raise_on_all_hosts(find)
        parallel.check_same_on_all_hosts(good, f'the newest checkpoint in {self._workdir}')
        for step in [step for step in self.evaluations if step > (good or 0)]:
            del self.evaluations[step]
        parallel.raise_on_all_hosts(
            partial(checkpoint_integrity.tidy, self._workdir, list(damaged))
        )
        self._manager.reload()
        return good, damaged

    def restore(self, step: int, like: Tree) -> Tree:
        """The tree saved at `step`, with the structure, dtypes and shardings of `like`.

        Raises:
          ConfigError: the saved tree differs.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        expected, saved = _shapes(abstract), _shapes(self._metadata(step))
        for name in sorted(expected.keys() | saved.keys()):
            if expected.get(name) != saved.get(name):
                raise ConfigError(
                    f'{self._name(step)} is of another model, optimizer or set of metrics: {name} '
                    f'was {saved.get(name, "absent")} and is {expected.get(name, "absent")}. Use '
                    'the config that it was trained with.'
                )
        return self._manager.restore(step, args=checkpoint_integrity.Restore(abstract))

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


def _listed(steps: Sequence[int]) -> str:
    return ', '.join(map(str, steps)) or 'none'


def _shapes(tree: Any) -> dict[str, str]:
    """{'0/params/conv1/kernel': 'float32[3,3,3,16]', ...}."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: hasattr(x, 'dtype'))
    return {
        jax.tree_util.keystr(path, simple=True, separator='/'): (f'{leaf.dtype}{list(leaf.shape)}')
        for path, leaf in leaves
    }
