"""Checkpoints through Orbax: written while training goes on, checked before they are read."""

import contextlib
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from ssanet_jax.errors import ConfigError
from ssanet_jax.training import checkpoint_integrity, parallel
from ssanet_jax.training.atomic_io import check_room, patiently
from ssanet_jax.training.metrics_file import read_metrics
from ssanet_jax.training.preservation import NewestAndBest

Tree = TypeVar('Tree')


def quality(metrics: Mapping[str, Any]) -> tuple[float, float]:
    """What makes a checkpoint the best: top-1, and between equals the lower loss."""
    loss = metrics['loss']
    return metrics['top1'], -loss if math.isfinite(loss) else -math.inf


class Checkpoints:
    """The checkpoints of a run; a context manager that waits for unfinished writes.

    Args:
      workdir: of the run. They are in its folder checkpoints/, how good they are in its
        metrics.jsonl.
      keep: how many of the newest to keep; the best is kept besides.
      read_only: for a look at a run that may be going on; leaves everything as it is.
    """

    def __init__(self, workdir: epath.PathLike, *, keep: int = 1, read_only: bool = False):
        self._workdir = epath.Path(workdir).resolve()
        self.directory = self._workdir / 'checkpoints'
        self.evaluations: dict[int, Mapping[str, Any]] = {
            line['step']: line for line in read_metrics(self._workdir) if line['split'] == 'eval'
        }
        self._keep = keep
        self._read_only = read_only
        if not read_only:
            self.directory.mkdir(parents=True, exist_ok=True)
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        verbosity = logging.get_verbosity()
        if self._read_only:  # of which Orbax warns, as if it had not been asked for
            logging.set_verbosity(logging.ERROR)
        manager = ocp.CheckpointManager(
            self.directory,
            item_handlers=checkpoint_integrity.CheckedHandler(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=NewestAndBest(self._wanted),
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
            return  # Another host may be gone, for whom Orbax would wait.
        try:
            self._manager.close()
        except Exception as error:
            if kind is None:
                raise
            logging.error('Besides, the last checkpoint could not be written: %s', error)

    def save(self, step: int, tree: Any, *, wait: bool = False) -> None:
        """Saves in the background, or at once if asked to `wait`.

        Raises:
          SaveError: this checkpoint, or the one before, could not be written.
        """

        def write() -> None:
            if not self.directory.is_dir():  # which Orbax would make anew
                raise FileNotFoundError(f'{self.directory} is gone')
            check_room(self.directory, sum(leaf.nbytes for leaf in jax.tree.leaves(tree)))
            try:
                if step not in self._manager.all_steps():
                    self._manager.save(step, args=checkpoint_integrity.Save(tree, step=step))
                if wait:
                    self._manager.wait_until_finished()
            except Exception:
                self._reopen()
                raise

        def others() -> str:
            intact = ', '.join(str(s) for s in self._on_disk() if s != step) or 'none'
            return (
                f'Those of steps {intact} are as they were; make room or give the folder back, '
                'then run the same command again.'
            )

        patiently(write, f'A checkpoint at step {step} in {self.directory}', others)

    def _reopen(self) -> None:
        """Forgets what could not be written."""
        if jax.process_count() == 1:
            with contextlib.suppress(Exception):
                self._manager.close()
            self._remove_unfinished()
            self._manager = self._open()

    def _remove_unfinished(self) -> None:
        for path in self.directory.iterdir():
            if path.is_dir() and ocp.utils.is_tmp_checkpoint(path):
                path.rmtree(missing_ok=True)

    def evaluated(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Takes note of how good `step` is."""
        self.evaluations[step] = metrics

    def prune(self, *, verify: bool = False) -> list[int]:
        """Deletes all but the newest `keep` and the best; returns the steps deleted.

        Raises:
          ConfigError: one to be kept is damaged, if it is to `verify` them; none is deleted then.
        """
        self._manager.wait_until_finished()
        steps = self.steps()
        wanted = self._wanted(steps)
        for step in sorted(wanted) if verify else ():
            if reason := self.damage(step):
                raise ConfigError(
                    f'The checkpoint of step {step} in {self.directory}, which would be kept, is '
                    f'damaged: {reason} Move it away first; none was deleted.'
                )
        unwanted = sorted(set(steps) - wanted)
        for step in unwanted:
            self._manager.delete(step)
        return unwanted

    def _wanted(self, steps: Sequence[int]) -> set[int]:
        best = self._best(steps)
        return {*sorted(steps)[-self._keep :], *([] if best is None else [best])}

    def _best(self, steps: Sequence[int]) -> int | None:
        scored = [step for step in steps if step in self.evaluations]
        return max(scored, key=lambda step: (quality(self.evaluations[step]), step), default=None)

    def steps(self) -> list[int]:
        """Of all checkpoints, rising."""
        return sorted(self._manager.all_steps())

    def written(self) -> list[int]:
        """Steps of the checkpoints that are whole, rising, when what is under way has ended."""
        with contextlib.suppress(Exception):  # It could not be written.
            self._manager.wait_until_finished()
        return self._on_disk()

    def best_step(self) -> int | None:
        """The best evaluated step that is kept, or None; of equals the latest."""
        return self._best(self.steps())

    def find(self, which: str) -> int:
        """The step that 'best', 'latest' or a number names.

        Raises:
          ConfigError: there is no such checkpoint, and which there are; or it is damaged.
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
                f'{", ".join(map(str, steps))}.'
            )
        if reason := self.damage(step):
            others = ', '.join(str(other) for other in steps if other != step) or 'none'
            raise ConfigError(
                f'The checkpoint of step {step} in {self.directory} is damaged: {reason} Choose '
                f'another with --checkpoint; there are {others}.'
            )
        return step

    def damage(self, step: int) -> str:
        """Which file of a checkpoint is not what was written, and how; '' if none is."""
        if reason := checkpoint_integrity.damage(self.directory / str(step)):
            return reason
        try:
            self._manager.metadata(step)
        except Exception as error:  # Orbax's, of what is not in its item's folder
            return f'its metadata cannot be read ({" ".join(str(error).split())}).'
        return ''

    def newest_good(self) -> tuple[int | None, dict[int, str]]:
        """The newest checkpoint that is not damaged, if there is any, once all hosts agree.

        Damaged ones that are newer are moved to the workdir's folder damaged/.

        Returns:
          Its step, and what is wrong with each newer one.

        Raises:
          ConfigError: all are damaged, or hosts see different ones.
          RunError: they cannot be read now.
        """
        good, damaged = parallel.together(self._find_newest_good)
        parallel.check_same_on_all_hosts(good, f'the newest checkpoint in {self._workdir}')
        self.evaluations = {
            step: metrics for step, metrics in self.evaluations.items() if step <= (good or 0)
        }
        parallel.together(partial(self._tidy, damaged))
        self._manager.reload()
        return good, damaged

    def _on_disk(self) -> list[int]:
        names = [path.name for path in self.directory.iterdir()] if self.directory.exists() else []
        return sorted(int(name) for name in names if name.isdigit())

    def _find_newest_good(self) -> tuple[int | None, dict[int, str]]:
        damaged: dict[int, str] = {}
        for step in reversed(self._on_disk()):
            if not (reason := self.damage(step)):
                return step, damaged
            damaged[step] = reason
        if damaged:
            reasons = '; '.join(f'{step}: {reason}' for step, reason in damaged.items())
            raise ConfigError(
                f'All checkpoints in {self.directory} are damaged ({reasons}). Nothing was '
                'changed; put a copy back, or choose a new workdir.'
            )
        return None, {}

    def _tidy(self, damaged: Mapping[int, str]) -> None:
        """Sets damaged checkpoints aside and removes unfinished ones, on the first host."""
        if jax.process_index() != 0:
            return
        self._remove_unfinished()
        folder = self._workdir / 'damaged'
        for step in damaged:
            folder.mkdir(exist_ok=True)
            number = sum(path.name.split('-')[0] == str(step) for path in folder.iterdir())
            name = f'{step}-{number}' if number else str(step)
            (self.directory / str(step)).rename(folder / name)

    def restore(self, step: int, like: Tree) -> Tree:
        """The tree saved at `step`, with the structure, dtypes and shardings of `like`.

        Raises:
          ConfigError: it is the checkpoint of another tree.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        expected, saved = _shapes(abstract), _shapes(self._metadata(step))
        for name in sorted(expected.keys() | saved.keys()):
            if expected.get(name) != saved.get(name):
                raise ConfigError(
                    f'The checkpoint of step {step} in {self.directory} is of another model or '
                    f'optimizer: {name} was {saved.get(name, "absent")} and is '
                    f'{expected.get(name, "absent")}. Choose the config that it was trained with.'
                )
        return self._manager.restore(step, args=checkpoint_integrity.Restore(abstract))

    def _metadata(self, step: int) -> Any:
        return self._manager.item_metadata(step).tree

    def restore_variables(self, step: int) -> dict[str, Any]:
        """'params' and 'batch_stats' saved at `step`, on one device, however many saved them."""
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            self._metadata(step),
            is_leaf=lambda leaf: hasattr(leaf, 'dtype'),
        )
        state, _ = self._manager.restore(step, args=checkpoint_integrity.Restore(abstract))
        return {name: state[name] for name in ('params', 'batch_stats') if state[name]}


def _shapes(tree: Any) -> dict[str, str]:
    """{'0/params/conv1/kernel': 'float32[3,3,3,16]', ...}."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: hasattr(x, 'dtype'))
    return {
        jax.tree_util.keystr(path, simple=True, separator='/'): (f'{leaf.dtype}{list(leaf.shape)}')
        for path, leaf in leaves
    }
