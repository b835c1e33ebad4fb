"""What a run starts from: new weights, given ones, or a checkpoint of its workdir."""

import dataclasses
from functools import partial

import jax
from ml_collections import ConfigDict

from ssanet_jax.errors import ConfigError
from ssanet_jax.training.checkpoints import integrity
from ssanet_jax.training.checkpoints.reader import CheckpointReader
from ssanet_jax.training.checkpoints.writer import Checkpoints
from ssanet_jax.training.initial_weights import load_weights
from ssanet_jax.training.metrics import Metrics
from ssanet_jax.training.multihost.hosts import raise_on_all_hosts
from ssanet_jax.training.steps import TrainState
from ssanet_jax.training.storage import run_history
from ssanet_jax.training.storage.workdir import Workdir
from ssanet_jax.training.trainer_setup import TrainerSetup

Sums = dict[str, jax.Array]


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

    Saved sums of other metrics are left out; with `new_optimizer`, so is a saved state of the
    optimizer that does not fit.
    """
    start, damaged = checkpoints.newest_good()
    notes += [
        f'The checkpoint of step {step} is damaged: {reason} It was moved to {workdir.damaged}.'
        for step, reason in damaged.items()
    ]
    if start is None:
        check = partial(run_history.check_nothing_lost, workdir)
        notes += raise_on_all_hosts(check, 'the comparison with the last start')
        return state, total
    if start > setup.plan.num_train_steps:
        raise ConfigError(
            f'{workdir} holds step {start}, but the run ends after '
            f'{setup.plan.num_train_steps}; make it longer, or use a new workdir.'
        )
    read = partial(_restore, checkpoints, start, (state, total.sums), notes, new_optimizer)
    state, sums = raise_on_all_hosts(read, 'the checkpoint')
    return state, dataclasses.replace(total, sums=sums)


def _restore(
    checkpoints: Checkpoints,
    step: int,
    like: tuple[TrainState, Sums],
    notes: list[str],
    new_optimizer: bool,
) -> tuple[TrainState, Sums]:
    """The state and the sums saved at `step`; what does not fit is that of `like`, and noted."""
    state, sums = like
    if not checkpoints.fits(step, like):
        if checkpoints.state_fits(step, state):
            notes.append(
                'The checkpoint has sums of other metrics; the next training metrics cover the '
                f'steps after {step} only.'
            )
            return checkpoints.restore_state(step, state), sums
        if new_optimizer:
            notes.append('The saved state of the optimizer does not fit; it starts anew.')
            return checkpoints.restore_model(step, like)
    return checkpoints.restore(step, like)


def model_fits(workdir: Workdir, setup: TrainerSetup) -> bool:
    """Whether the newest good checkpoint has the parameters of the model.

    Raises:
      ConfigError: all are damaged.
      RunError: they cannot be read now.
    """
    with CheckpointReader(workdir) as checkpoints:
        step, _ = integrity.newest_good(workdir, checkpoints.damage)
        return step is not None and checkpoints.model_fits(step, jax.eval_shape(setup.init))
