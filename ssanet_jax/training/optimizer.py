"""Learning rate schedules and optimizers, composed from optax."""

import fnmatch
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from ssanet_jax.config import TrainPlan
from ssanet_jax.errors import ConfigError, nearest


def make_schedule(config: ConfigDict, plan: TrainPlan) -> optax.Schedule:
    """Maps a step to its learning rate: linear warm-up from 0, then `config.schedule`.

    'step' counts its epochs from the start of training, warm-up included; 'cosine' falls
    from the end of the warm-up toward 0, which it would reach one step after the last.

    Args:
      config: `config.optimizer`.
      plan: gives the peak, and epochs in steps.
    """
    peak = plan.peak_learning_rate
    warmup = round(config.warmup_epochs * plan.steps_per_epoch)
    decays = {
        'constant': lambda: optax.constant_schedule(peak),
        'cosine': lambda: optax.cosine_decay_schedule(peak, plan.num_train_steps - warmup),
        'step': lambda: optax.piecewise_constant_schedule(peak, _decays(config, plan, warmup)),
    }
    decay = decays[config.schedule]()
    if not warmup:
        return decay
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), decay], [warmup])


def _decays(config: ConfigDict, plan: TrainPlan, warmup: int) -> dict[int, float]:
    """Factors by step after the warm-up; epochs that round to the same step multiply."""
    factors: dict[int, float] = {}
    for epoch in config.decay_epochs:
        step = round(epoch * plan.steps_per_epoch) - warmup
        factors[step] = factors.get(step, 1.0) * config.decay_factor
    return factors


def scale_by_step_schedule(
    schedule: optax.Schedule,
) -> optax.GradientTransformationExtraArgs:
    """Scales updates by -schedule(step), where `step` is an argument of `update`.

    optax's `scale_by_schedule` counts its updates instead, and lags behind the training step
    where `optax.apply_if_finite` skips some.
    """

    def update(
        updates: optax.Updates,
        state: optax.EmptyState,
        params: optax.Params | None = None,
        *,
        step: jax.Array,
        **_: Any,
    ) -> tuple[optax.Updates, optax.EmptyState]:
        scale = -schedule(step)
        return jax.tree.map(lambda u: jnp.asarray(scale, u.dtype) * u, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def make_optimizer(
    config: ConfigDict, schedule: optax.Schedule
) -> optax.GradientTransformationExtraArgs:
    """Builds the optimizer of `config.optimizer`; its `update` needs an argument `step`.

    SGD adds weight decay to the gradient before momentum, as torch does and as the
    released recipes assume; AdamW decouples it.
    """
    if config.train_only:
        rest = config.copy_and_resolve_references()
        rest.train_only = ()
        return optax.partition(
            {True: make_optimizer(rest, schedule), False: optax.set_to_zero()},
            partial(trainable, patterns=config.train_only),
        )
    mask = {'all': None, 'kernels': kernels}[config.decay_parameters]
    decay = optax.add_decayed_weights(config.weight_decay, mask)
    if config.name == 'adamw':
        parts = optax.scale_by_adam(config.b1, config.b2), decay
    else:
        parts = decay, optax.trace(config.momentum, config.nesterov)
    return optax.chain(*parts, scale_by_step_schedule(schedule))


def trainable(params: Any, *, patterns: Sequence[str]) -> Any:
    """True for parameters whose path, such as 'layer1_0/ssa/bn/scale', matches a pattern."""

    def matches(path: Any, _: Any) -> bool:
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

    return jax.tree_util.tree_map_with_path(matches, params)


def check_train_only(config: ConfigDict, params: Any) -> None:
    """Checks that each pattern of `config.train_only` matches a parameter; raises ConfigError."""
    for pattern in config.train_only:
        if not any(jax.tree.leaves(trainable(params, patterns=[pattern]))):
            paths = jax.tree_util.tree_leaves_with_path(params)
            names = [jax.tree_util.keystr(path, simple=True, separator='/') for path, _ in paths]
            raise ConfigError(
                f'config.optimizer.train_only has {pattern!r}, which matches no parameter; '
                f'nearest: {nearest(pattern, names)}.'
            )


def kernels(params: Any) -> Any:
    """True for the kernels of convolutions and dense layers, False for biases and BatchNorm."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == 'kernel', params)
