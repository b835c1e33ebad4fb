"""One training step and one evaluation step, as pure functions of one device's share of a batch.

Both run inside `jax.shard_map` over the mesh axis 'data': parameters are replicated, the
batch is split, and what they return is the same on every device.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Self

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from ssanet_jax.training.accumulation import accumulate
from ssanet_jax.training.losses import evaluation_loss
from ssanet_jax.training.metrics import MetricFn, Metrics
from ssanet_jax.training.objective import DATA_AXIS, DeviceBatch, Objective, Preprocess

VariablesFn = Callable[[dict[str, Any]], Any]
# Of the state after a step, and whether the step was applied if it may have been skipped.
AverageFn = Callable[[Any, jax.Array | None], Any]


@flax.struct.dataclass
class TrainState:
    """Everything that changes during training: arrays only.

    Attributes:
      step: int32, number of training steps taken, skipped ones included.
      params: parameters, float32.
      batch_stats: BatchNorm's running statistics, float32.
      opt_state: the optimizer's.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState

    @property
    def variables(self) -> dict[str, Any]:
        """The variables that `model.apply` takes."""
        return {'params': self.params, 'batch_stats': self.batch_stats}

    @property
    def eval_states(self) -> Mapping[str, 'TrainState']:
        """The states to evaluate, by prefix of their metrics; '' is that of the trained network."""
        return {'': self}

    def map_variables(self, function: VariablesFn) -> Self:
        """Replaces the variables, and averages of them, by a function of each."""
        return dataclasses.replace(self, **function(self.variables))


def init_state(
    seed: int, *, model: nn.Module, tx: optax.GradientTransformation, image_size: int
) -> TrainState:
    """The state before the first step; a pure function of the seed."""
    image = jnp.zeros((1, image_size, image_size, 3), jnp.float32)
    variables = model.init(jax.random.key(seed), image, train=False)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables['params'],
        batch_stats=variables.get('batch_stats', {}),
        opt_state=tx.init(variables['params']),
    )


def train_step(
    state: TrainState,
    batch: DeviceBatch,
    *,
    objective: Objective,
    tx: optax.GradientTransformation,
    metrics: Mapping[str, MetricFn] | None = None,
    micro_batches: int = 1,
    average: AverageFn | None = None,
    max_loss: float = math.inf,
    max_bad_steps: int = 0,
    all_reduce_dtype: jnp.dtype | None = None,
) -> tuple[TrainState, Metrics]:
    """One optimizer step on the mean loss over all devices' unmasked images.

    Gradients, running statistics and metrics cross devices together, at the end.

    Args:
      state: donated by the caller; do not reuse.
      batch: image uint8 [N, H, W, 3], label int32 [N], mask bool [N].
      objective: computes the loss of each image.
      tx: its `update` gets `step=state.step`, from which `make_optimizer`'s schedules follow.
      metrics: per-example functions; by default those of `METRICS`. Of mixed images they get the
        label with the larger weight.
      micro_batches: parts of each device's batch whose gradients are computed one after the other.
      average: updates the averages of the state, as `ema.average`.
      max_loss: a step is bad if its mean loss exceeds this, or its loss or gradient is not finite.
      max_bad_steps: if `tx` is an `optax.apply_if_finite`, the number of consecutive non-finite
        steps that it skips; a skipped step changes nothing but `step`, and is not bad.
      all_reduce_dtype: in which the gradients of kernels cross devices; by default their own.

    Returns:
      The next state, and sums over unmasked images, already summed over devices.
    """

    def total_loss(
        params: Any, batch_stats: Any, batch: Mapping[str, Any], part: jax.Array | None
    ) -> tuple[jax.Array, tuple[Any, Metrics]]:
        losses, logits, label, stats = objective(params, batch_stats, batch, state.step, part)
        total = Metrics.of(logits, label, losses, batch['mask'], metrics)
        return total.loss, (stats, total)

    gradient = partial(jax.grad(total_loss, has_aux=True), state.params)
    grads, (batch_stats, total) = accumulate(
        gradient, state.batch_stats, objective.with_partners(batch), micro_batches
    )
    grads, (batch_stats, sums) = _sum_over_devices(
        grads, (batch_stats, total.sums), all_reduce_dtype
    )
    total = dataclasses.replace(total, sums=sums)
    grads = jax.tree.map(lambda g: g / total.num_examples, grads)
    devices = jax.lax.axis_size(DATA_AXIS)
    batch_stats = jax.tree.map(lambda s: s / devices, batch_stats)
    next_state, applied = _apply_gradients(state, grads, batch_stats, tx)
    bad = ~jnp.isfinite(total.loss) | (total.loss > max_loss * total.num_examples)
    if applied is None:
        bad |= ~jnp.isfinite(optax.tree.norm(grads))
    else:
        total = jax.tree.map(lambda s: jnp.where(applied, s, jnp.zeros_like(s)), total)
        bad = (bad & applied) | (next_state.opt_state.notfinite_count > max_bad_steps)
    if average is not None:
        next_state = average(next_state, applied)
    return next_state, dataclasses.replace(total, bad_step=jnp.where(bad, next_state.step, 0))


def _apply_gradients(
    state: TrainState, grads: Any, batch_stats: Any, tx: optax.GradientTransformation
) -> tuple[TrainState, jax.Array | None]:
    """The next state, and whether the step was applied if `tx` is an `optax.apply_if_finite`."""
    update = optax.with_extra_args_support(tx).update
    with jax.numpy_dtype_promotion('standard'):  # optax multiplies counts by floats
        updates, opt_state = update(grads, state.opt_state, state.params, step=state.step)
    applied = None
    if isinstance(opt_state, optax.ApplyIfFiniteState):
        applied = opt_state.last_finite
        batch_stats = jax.tree.map(partial(jnp.where, applied), batch_stats, state.batch_stats)
    next_state = dataclasses.replace(
        state,
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
    )
    return next_state, applied


def _sum_over_devices(
    grads: Any, others: Any, all_reduce_dtype: jnp.dtype | None = None
) -> tuple[Any, Any]:
    """Sums over the mesh, vectors and scalars as one array.

    XLA combines all-reduces, but on CPUs at most 256 into one; ResNet-110 has 767 arrays. Kernels'
    gradients are rounded to `all_reduce_dtype` before the sum; vectors are too small to matter.
    """
    if jax.lax.axis_size(DATA_AXIS) == 1:
        return grads, others  # XLA would copy them
    dtypes = jax.tree.map(jnp.result_type, grads)
    if all_reduce_dtype is not None:
        grads = jax.tree.map(lambda g: g if g.ndim < 2 else g.astype(all_reduce_dtype), grads)
    leaves, structure = jax.tree.flatten((grads, others))
    small = [leaf for leaf in leaves if leaf.ndim < 2]
    large = [leaf for leaf in leaves if leaf.ndim >= 2]
    vector, unravel = ravel_pytree(small)
    vector, large = jax.lax.psum((vector, large), DATA_AXIS)
    summed = {True: iter(unravel(vector)), False: iter(large)}
    grads, others = jax.tree.unflatten(structure, [next(summed[a.ndim < 2]) for a in leaves])
    return jax.tree.map(lambda g, dtype: g.astype(dtype), grads, dtypes), others


def predict(
    variables: Mapping[str, Any],
    image: jax.Array,
    model: nn.Module,
    preprocess: Preprocess,
    *,
    flip: bool = False,
) -> jax.Array:
    """Logits [N, K] of uint8 images [N, H, W, 3], in inference mode.

    With `flip`, they are the mean of the logits of an image and of its mirror image.
    """
    x = preprocess(image)
    logits: Any = model.apply(variables, x, train=False)
    if flip:
        mirrored: Any = model.apply(variables, x[:, :, ::-1], train=False)
        logits = (logits + mirrored) / 2
    return logits


def eval_step(
    state: TrainState,
    batch: DeviceBatch,
    *,
    model: nn.Module,
    preprocess: Preprocess,
    metrics: Mapping[str, MetricFn] | None = None,
    flip: bool = False,
) -> Metrics:
    """Sums of the cross-entropy and of `metrics` over all devices' unmasked images.

    The loss is `evaluation_loss`, whatever the training loss: evaluations stay comparable. An
    image that could not be decoded has label -1 and counts as an incorrect, uniform guess.
    """
    label = batch['label']
    logits = predict(state.variables, batch['image'], model, preprocess, flip=flip)
    losses = evaluation_loss(logits, label)
    total = Metrics.of(logits, label, losses, batch['mask'], metrics)
    return dataclasses.replace(total, sums=jax.lax.psum(total.sums, DATA_AXIS))
