"""One training step and one evaluation step, as pure functions of one device's share.

Both run inside `jax.shard_map` over the mesh axis 'data': parameters are replicated, the
batch is split, and what they return is the same on every device.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from ssanet_jax.training.losses import LossFn, evaluation_loss
from ssanet_jax.training.metrics import Metrics
from ssanet_jax.training.train_state import TrainState

DATA_AXIS = 'data'

DeviceBatch = Mapping[str, jax.Array]
Preprocess = Callable[[jax.Array], jax.Array]


def preprocess(image: jax.Array, *, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """uint8 images [N, H, W, 3] to float32, (image / 255 - mean) / std for each channel."""
    scale = 1 / (255 * jnp.asarray(std, jnp.float32))
    shift = jnp.asarray(mean, jnp.float32) / jnp.asarray(std, jnp.float32)
    return image.astype(jnp.float32) * scale - shift


def dropout_key(seed: int, step: jax.Array) -> jax.Array:
    """What dropout draws from in a step, another on each device; inside shard_map over 'data'."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.random.fold_in(key, jax.lax.axis_index(DATA_AXIS))


def train_step(
    state: TrainState,
    batch: DeviceBatch,
    *,
    model: nn.Module,
    tx: optax.GradientTransformation,
    loss: LossFn,
    preprocess: Preprocess,
    dropout_seed: int = 0,
    max_loss: float = math.inf,
    max_bad_steps: int = 0,
) -> tuple[TrainState, Metrics]:
    """One optimizer step on the mean loss over all devices' unmasked images.

    Gradients, running statistics and metrics cross devices together, at the end.

    Args:
      state: donated by the caller; do not reuse.
      batch: image uint8 [N, H, W, 3], label int32 [N], mask bool [N].
      dropout_seed: what is dropped follows from it, the step and the device.
      max_loss: a step is bad whose mean loss is above it, or whose loss or gradient is not finite.
      max_bad_steps: of optax.apply_if_finite, if `tx` is one: so many steps in a row that are not
        finite change nothing but the count of steps, and are not bad.

    Returns:
      The next state, and sums over unmasked images, both already summed over devices.
    """
    key = dropout_key(dropout_seed, state.step)

    def total_loss(params: Any) -> tuple[jax.Array, tuple[Any, Metrics]]:
        logits: Any
        logits, updates = model.apply(
            {'params': params, 'batch_stats': state.batch_stats},
            preprocess(batch['image']),
            train=True,
            mutable=['batch_stats'],
            rngs={'dropout': key},
        )
        losses = loss(logits, batch['label'])
        metrics = Metrics.of(logits, batch['label'], losses, batch['mask'])
        return metrics.loss, (updates.get('batch_stats', {}), metrics)

    grads, (batch_stats, metrics) = jax.grad(total_loss, has_aux=True)(state.params)
    grads, batch_stats, metrics = _sum_over_devices((grads, batch_stats, metrics))
    grads = jax.tree.map(lambda g: g / metrics.num_examples, grads)
    devices = jax.lax.axis_size(DATA_AXIS)
    with jax.numpy_dtype_promotion('standard'):  # optax multiplies counts by floats
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
    batch_stats = jax.tree.map(lambda s: s / devices, batch_stats)
    bad = ~jnp.isfinite(metrics.loss) | ~jnp.isfinite(optax.tree.norm(grads))
    if isinstance(opt_state, optax.ApplyIfFiniteState):
        batch_stats, metrics = jax.tree.map(
            partial(jnp.where, opt_state.last_finite),
            (batch_stats, metrics),
            (state.batch_stats, Metrics.zero()),
        )
        bad = opt_state.notfinite_count > max_bad_steps
    next_state = TrainState(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
    )
    bad |= metrics.loss > max_loss * metrics.num_examples
    bad_step = jnp.where(bad, next_state.step, 0).astype(jnp.float32)
    return next_state, dataclasses.replace(metrics, bad_step=bad_step)


def _sum_over_devices(tree: Any) -> Any:
    """Psum in few pieces: all vectors and scalars as one, so that XLA can combine the rest."""
    if jax.lax.axis_size(DATA_AXIS) == 1:
        return tree  # XLA would copy it
    leaves, structure = jax.tree.flatten(tree)
    small = [leaf for leaf in leaves if leaf.ndim < 2]
    large = [leaf for leaf in leaves if leaf.ndim >= 2]
    vector, unravel = ravel_pytree(small)
    vector, large = jax.lax.psum((vector, large), DATA_AXIS)
    summed = {True: iter(unravel(vector)), False: iter(large)}
    return jax.tree.unflatten(structure, [next(summed[leaf.ndim < 2]) for leaf in leaves])


def eval_step(
    state: TrainState, batch: DeviceBatch, *, model: nn.Module, preprocess: Preprocess
) -> Metrics:
    """Sums of the cross-entropy and of right answers over all devices' unmasked images.

    An image of label -1, which could not be decoded, is one that nothing is right for; its
    loss is that of a uniform guess, log K.
    """
    label = batch['label']
    logits: Any = model.apply(state.variables, preprocess(batch['image']), train=False)
    losses = evaluation_loss(logits, label)
    return jax.lax.psum(Metrics.of(logits, label, losses, batch['mask']), DATA_AXIS)
