"""Checkpoints through Orbax: the newest few and the best, written while training goes on."""

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from orbax.checkpoint import checkpoint_managers

from ssanet_jax.config import ConfigError

Tree = TypeVar('Tree')


def quality(metrics: Mapping[str, Any]) -> tuple[float, float]:
    """What makes a checkpoint the best: top-1, and between equals the lower loss."""
    loss = metrics['loss']
    return metrics['top1'], -loss if math.isfinite(loss) else -math.inf


class Checkpoints:
    """The checkpoints in one folder; a context manager that waits for unfinished writes.

    Args:
      directory: created if missing, unless `read_only`.
      keep: how many of the newest to keep; the best is kept besides.
      read_only: for a look at a run that may be going on; leaves everything as it is.
    """

    def __init__(self, directory: epath.PathLike, *, keep: int = 1, read_only: bool = False):
        policy = checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(keep),
                checkpoint_managers.BestN(
                    get_metric_fn=quality, n=1, keep_checkpoints_without_metrics=False
                ),
            ]
        )
        self.directory = epath.Path(directory).resolve()
        verbosity = logging.get_verbosity()
        if read_only:  # of which Orbax warns, as if it had not been asked for
            logging.set_verbosity(logging.ERROR)
        self._manager = ocp.CheckpointManager(
            self.directory,
            item_handlers=ocp.StandardCheckpointHandler(),  # with which shapes can be asked for
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policy,
                best_fn=quality,  # without it Orbax forgets the metrics
                create=not read_only,
                cleanup_tmp_directories=not read_only,
                read_only=read_only,
            ),
        )
        logging.set_verbosity(verbosity)

    def __enter__(self) -> 'Checkpoints':
        return self

    def __exit__(self, *exception: object) -> None:
        self._manager.close()

    def save(self, step: int, tree: Any, metrics: Mapping[str, float] | None) -> None:
        """Saves in the background; `metrics` are an evaluation's, if there was one."""
        self._manager.save(step, args=ocp.args.StandardSave(tree), metrics=metrics)

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """The best evaluated step that is kept, or None; of equals the latest."""
        scores = {step: self._manager.metrics(step) for step in self._manager.all_steps()}
        scored = [(quality(metrics), step) for step, metrics in scores.items() if metrics]
        return max(scored)[1] if scored else None

    def find(self, which: str) -> int:
        """The step that 'best', 'latest' or a number names.

        Raises:
          ConfigError: there is no such checkpoint; the message lists those there are.
        """
        steps = sorted(self._manager.all_steps())
        if not steps:
            raise ConfigError(f'{self.directory} holds no checkpoint; train there first.')
        if which in ('best', 'latest'):
            step = self.best_step() if which == 'best' else steps[-1]
            if step is None:
                raise ConfigError(
                    f'No checkpoint in {self.directory} was evaluated; choose --checkpoint=latest.'
                )
            return step
        if which.isdigit() and int(which) in steps:
            return int(which)
        raise ConfigError(
            f'--checkpoint={which} is not in {self.directory}; choose best, latest or one of '
            f'{", ".join(map(str, steps))}.'
        )

    def restore(self, step: int, like: Tree) -> Tree:
        """The tree saved at `step`, with the structure, dtypes and shardings of `like`."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return self._manager.restore(step, args=ocp.args.StandardRestore(abstract))

    def restore_variables(self, step: int) -> dict[str, Any]:
        """'params' and 'batch_stats' saved at `step`, on one device, however many saved them."""
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            self._manager.item_metadata(step).tree,
            is_leaf=lambda leaf: hasattr(leaf, 'dtype'),
        )
        state, _ = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
        return {name: state[name] for name in ('params', 'batch_stats') if state[name]}
