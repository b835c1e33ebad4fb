"""Learning rate schedules and optimizers, composed from optax."""

import fnmatch
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from ml_collections import ConfigDict
from optax.contrib import MuonDimensionNumbers

from ssanet_jax.config import TrainPlan
from ssanet_jax.errors import ConfigError, nearest
from ssanet_jax.training.checkpoints.trees import named_leaves

Transform: TypeAlias = optax.GradientTransformation


def make_schedule(config: ConfigDict, plan: TrainPlan) -> optax.Schedule:
    """Maps a step to its learning rate: linear warm-up, then `config.schedule`.

    'step' and 'piecewise' count their epochs from the start of training, warm-up included. 'cosine'
    and 'polynomial' fall from the end of the warm-up toward the floor, which they would reach one
    step after the last, or at the cool-down, which stays there.

    Args:
      config: `config.optimizer`.
      plan: gives the peak, the warm-up and the cool-down, and epochs in steps.
    """
    peak, warmup = plan.peak_learning_rate, plan.warmup_steps
    length = plan.num_train_steps - warmup - plan.cooldown_steps
    decays = {
        'constant': lambda: optax.constant_schedule(peak),
        'cosine': lambda: optax.cosine_decay_schedule(peak, length, config.floor),
        'polynomial': lambda: optax.polynomial_schedule(
            peak, config.floor * peak, config.power, length
        ),
        'step': lambda: optax.piecewise_constant_schedule(peak, _decays(config, plan)),
        'piecewise': lambda: _interpolated(config, plan),
    }
    decay = decays[config.schedule]()
    if not warmup:
        return decay
    rise = optax.linear_schedule(config.warmup_start * peak, peak, warmup)
    return optax.join_schedules([rise, decay], [warmup])


def _interpolated(config: ConfigDict, plan: TrainPlan) -> optax.Schedule:
    """Straight lines between the knots, and constant beyond them, by step after the warm-up."""
    steps = np.array([float(epoch * plan.steps_per_epoch) for epoch in config.knot_epochs])
    rates = np.asarray(config.knot_factors, np.float32) * np.float32(plan.peak_learning_rate)

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(count, jnp.float32)
        return jnp.interp(step, (steps - plan.warmup_steps).astype(np.float32), rates)

    return schedule


def _decays(config: ConfigDict, plan: TrainPlan) -> dict[int, float]:
    """Factors by step after the warm-up; epochs that round to the same step multiply."""
    factors: dict[int, float] = {}
    for epoch in config.decay_epochs:
        step = round(epoch * plan.steps_per_epoch) - plan.warmup_steps
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
    """Builds the optimizer of `config.optimizer`; its `update` needs an argument `step`."""
    if config.train_only:
        rest = config.copy_and_resolve_references()
        rest.train_only = ()
        return optax.partition(
            {True: make_optimizer(rest, schedule), False: optax.set_to_zero()},
            partial(trainable_mask, patterns=config.train_only),
        )
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    mask = {'all': None, 'kernels': kernel_mask}[config.decay_parameters]
    decay = optax.add_decayed_weights(config.weight_decay, mask)
    parts = OPTIMIZERS[config.name](config, decay, scale_by_step_schedule(schedule))
    return optax.chain(*clip, *parts)


def _sgd(config: ConfigDict, decay: Transform, scale_by_lr: Transform) -> list[Transform]:
    """Decay is added to the gradient before momentum, as in torch and the released recipes."""
    return [decay, optax.trace(config.momentum, config.nesterov), scale_by_lr]


def _adamw(config: ConfigDict, decay: Transform, scale_by_lr: Transform) -> list[Transform]:
    return [optax.scale_by_adam(config.b1, config.b2), decay, scale_by_lr]


def _lamb(config: ConfigDict, decay: Transform, scale_by_lr: Transform) -> list[Transform]:
    """`optax.lamb`; only layers that are decayed are adapted, as in timm's Lamb."""
    return [optax.scale_by_adam(config.b1, config.b2, eps=1e-6), decay, _trust(config), scale_by_lr]


def _lars(config: ConfigDict, decay: Transform, scale_by_lr: Transform) -> list[Transform]:
    """`optax.lars`, whose momentum is of updates times their learning rates."""
    trace = optax.trace(config.momentum, config.nesterov)
    return [decay, _trust(config, trust_coefficient=1e-3), scale_by_lr, trace]


def _lion(config: ConfigDict, decay: Transform, scale_by_lr: Transform) -> list[Transform]:
    return [optax.scale_by_lion(config.b1, config.b2), decay, scale_by_lr]


def _muon(config: ConfigDict, decay: Transform, scale_by_lr: Transform) -> list[Transform]:
    """`optax.contrib.muon`, with updates as large as AdamW's (Liu et al. 2025, section 2.2).

    Kernels as matrices [kh * kw * C_in, C_out]; AdamW for the rest, and for depthwise kernels.
    """

    def matrices(params: Any) -> Any:
        def dimensions(is_kernel: bool, a: jax.Array) -> MuonDimensionNumbers | None:
            if not is_kernel or a.shape[-2] == 1:
                return None
            return MuonDimensionNumbers(tuple(range(a.ndim - 1)), a.ndim - 1)

        return jax.tree.map(dimensions, kernel_mask(params), params)

    direction = optax.contrib.muon(
        -1.0,  # `scale_by_lr` has the sign
        beta=config.momentum,
        nesterov=config.nesterov,
        adam_b1=config.b1,
        adam_b2=config.b2,
        muon_weight_dimension_numbers=matrices,
        consistent_rms=0.2,
    )
    return [direction, decay, scale_by_lr]


def _trust(config: ConfigDict, **options: float) -> Transform:
    """Scales updates by ||parameters|| / ||update||, of all layers or of kernels only."""
    trust = optax.scale_by_trust_ratio(**options)
    return trust if config.decay_parameters == 'all' else optax.masked(trust, kernel_mask)


#: Optimizers as transformations to chain, of their config, weight decay and learning rate.
OPTIMIZERS: dict[str, Callable[[ConfigDict, Transform, Transform], list[Transform]]] = {
    'sgd': _sgd,
    'adamw': _adamw,
    'lamb': _lamb,
    'lars': _lars,
    'lion': _lion,
    'muon': _muon,
}


def trainable_mask(params: Any, *, patterns: Sequence[str]) -> Any:
    """True for parameters whose path, such as 'layer1_0/ssa/bn/scale', matches a pattern."""

    def matches(path: Any, _: Any) -> bool:
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

    return jax.tree_util.tree_map_with_path(matches, params)


def check_train_only(config: ConfigDict, params: Any) -> None:
    """Checks that each pattern of `config.train_only` matches a parameter; raises ConfigError."""
    for pattern in config.train_only:
        if not any(jax.tree.leaves(trainable_mask(params, patterns=[pattern]))):
            raise ConfigError(
                f'config.optimizer.train_only has {pattern!r}, which matches no parameter; '
                f'nearest: {nearest(pattern, named_leaves(params))}.'
            )


def kernel_mask(params: Any) -> Any:
    """True for the kernels of convolutions and dense layers, False for biases and BatchNorm."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == 'kernel', params)
