"""What a run starts from: new weights, given ones, or a checkpoint of its workdir."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from ml_collections import ConfigDict

from ssanet_jax.errors import ConfigError
from ssanet_jax.training.checkpoints.reader import CheckpointReader
from ssanet_jax.training.checkpoints.writer import Checkpoints
from ssanet_jax.training.initial_weights import load_weights
from ssanet_jax.training.metrics import Metrics
from ssanet_jax.training.multihost.hosts import raise_on_all_hosts
from ssanet_jax.training.steps import TrainState
from ssanet_jax.training.storage import run_history
from ssanet_jax.training.storage.workdir import Workdir
from ssanet_jax.training.trainer_setup import TrainerSetup


def initial_state(
    config: ConfigDict, setup: TrainerSetup, workdir: Workdir, notes: list[str]
) -> TrainState:
    """The state before the first step; weights are read before anything is written."""
    state = setup.init()
    if config.init.weights and not workdir.checkpoint_steps():
        return load_weights(config, setup, state, notes.append)
    return state


def resume(
    setup: TrainerSetup,
    state: TrainState,
    total: Metrics,
    checkpoints: Checkpoints,
    workdir: Workdir,
    notes: list[str],
    *,
    new_optimizer: bool,
) -> tuple[TrainState, Metrics]:
    """The state and metrics of the newest good checkpoint, or those given if there is none.

    With `new_optimizer`, a saved state of the optimizer that does not fit is left out.
    """
    start, damaged = checkpoints.newest_good()
    notes += [
        f'The checkpoint of step {step} is damaged: {reason} It was moved to {workdir.damaged}.'
        for step, reason in damaged.items()
    ]
    if start is None:
        notes += raise_on_all_hosts(partial(run_history.check_nothing_lost, workdir, setup.plan))
        return state, total
    if start > setup.plan.num_train_steps:
        raise ConfigError(
            f'{workdir} holds step {start}, but the run ends after '
            f'{setup.plan.num_train_steps}; make it longer, or use a new workdir.'
        )
    like = (state, total.sums)
    restore: Callable[..., Any] = checkpoints.restore
    if new_optimizer and not checkpoints.fits(start, like):
        restore = checkpoints.restore_model
        notes.append('The saved state of the optimizer does not fit; it starts anew.')
    state, sums = raise_on_all_hosts(partial(restore, start, like))
    return state, dataclasses.replace(total, sums=sums)


def model_fits(workdir: Workdir, setup: TrainerSetup) -> bool:
    """Whether the newest checkpoint has the parameters of the model."""
    with CheckpointReader(workdir) as checkpoints:
        return checkpoints.model_fits(checkpoints.steps()[-1], jax.eval_shape(setup.init))
