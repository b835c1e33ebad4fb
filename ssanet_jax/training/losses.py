"""Per-example losses: logits [N, K] and targets to [N], in float32.

Targets are a label int [N] per example, or mixed: `label` with probability `weight` [N], else
`other`. A dense row [K] exists on the device only, inside the losses that need one.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ssanet_jax.errors import ConfigError

LossFn = Callable[..., jax.Array]  # of logits, label, and of mixed targets also other, weight


def cross_entropy(
    logits: jax.Array, label: jax.Array, *, label_smoothing: float = 0.0
) -> jax.Array:
    """Cross-entropy per example, -sum_k q[k] log softmax(logits)[k], in nats.

    q is 1 - label_smoothing at the label, plus label_smoothing / K everywhere (Szegedy
    et al. 2016, section 7).

    Args:
      logits: [N, K].
      label: int [N].
      label_smoothing: in [0, 1).

    Returns:
      [N], dtype of logits.
    """
    if label_smoothing == 0.0:
        return optax.softmax_cross_entropy_with_integer_labels(logits, label)
    one_hot = jax.nn.one_hot(label, logits.shape[-1], dtype=logits.dtype)
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(one_hot, label_smoothing))


def binary_cross_entropy(
    logits: jax.Array,
    label: jax.Array,
    other: jax.Array | None = None,
    weight: jax.Array | None = None,
    *,
    label_smoothing: float = 0.0,
    target_threshold: float | None = None,
) -> jax.Array:
    """Binary cross-entropy per example, the mean over classes of that of sigmoid(logits)::

        mean_k -(q[k] log sigmoid(logits[k]) + (1 - q[k]) log sigmoid(-logits[k]))

    q is that of `cross_entropy`, mixed: weight * q(label) + (1 - weight) * q(other). With a
    threshold it becomes 1 where it exceeds it and 0 elsewhere: an image mixed of two has both
    labels in full (Wightman et al. 2021, section 3.1). As timm's BinaryCrossEntropy, whose mean is
    over classes too, so values are small: log 2 without training, whatever K.

    Args:
      logits: [N, K].
      label, other: int [N]; without `other`, all weight is on `label`.
      weight: of `label`, [N] in [0, 1].
      label_smoothing: in [0, 1).
      target_threshold: in [0, 1), or None.

    Returns:
      [N], dtype of logits.
    """

    def smoothed(labels: jax.Array) -> jax.Array:  # [N, K]
        one_hot = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
        return optax.smooth_labels(one_hot, label_smoothing)

    target = smoothed(label)
    if other is not None and weight is not None:
        share = weight[:, None].astype(logits.dtype)
        target = share * target + (1 - share) * smoothed(other)
    if target_threshold is not None:
        target = (target > target_threshold).astype(logits.dtype)
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, target), axis=-1)


def on_mixed_targets(loss: LossFn) -> LossFn:
    """Extends a loss of labels to mixed targets, unless it takes them itself.

    weight * loss(logits, label) + (1 - weight) * loss(logits, other), which equals the loss of
    the mixed target if the loss is linear in it, as cross-entropies are (Zhang et al. 2018).
    """
    if 'other' in inspect.signature(loss).parameters:
        return loss

    def mixed(
        logits: jax.Array, label: jax.Array, other: jax.Array, weight: jax.Array
    ) -> jax.Array:
        weight = weight.astype(logits.dtype)
        return weight * loss(logits, label) + (1 - weight) * loss(logits, other)

    return mixed


#: The choices of `config.loss`; each gets the options of the config that it has arguments for.
LOSSES: dict[str, Callable[..., jax.Array]] = {
    'cross_entropy': cross_entropy,
    'binary_cross_entropy': binary_cross_entropy,
}


def make_loss(
    name: str, *, label_smoothing: float = 0.0, target_threshold: float | None = None
) -> LossFn:
    """Looks up a training loss.

    Raises:
      ConfigError: `LOSSES` has no such name, or the loss does not take an option that is set.
    """
    if name not in LOSSES:
        raise ConfigError(
            f'config.loss={name!r} is not known; choose one of {", ".join(LOSSES)}, or add yours '
            'to ssanet_jax.training.losses.LOSSES in the recipe.'
        )
    loss, options = LOSSES[name], dict[str, Any]()
    if label_smoothing:
        options['label_smoothing'] = label_smoothing
    if target_threshold is not None:
        options['target_threshold'] = target_threshold
    for option, value in options.items():
        if option not in inspect.signature(loss).parameters:
            unset = 'set it to 0' if option == 'label_smoothing' else 'leave it unset'
            raise ConfigError(
                f'config.{option}={value} has no effect with config.loss={name!r}; {unset}.'
            )
    return partial(loss, **options) if options else loss


def evaluation_loss(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Cross-entropy per example [N]; log K, that of a uniform guess, where the label is -1."""
    uniform = jnp.log(jnp.asarray(logits.shape[1], logits.dtype))
    return jnp.where(label < 0, uniform, cross_entropy(logits, jnp.maximum(label, 0)))
