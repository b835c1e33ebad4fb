"""Losses of single examples: logits [N, K] and labels [N] to [N], in float32."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

LossFn = Callable[[jax.Array, jax.Array], jax.Array]


def cross_entropy(
    logits: jax.Array, label: jax.Array, *, label_smoothing: float = 0.0
) -> jax.Array:
    """-sum_k q[k] log softmax(logits)[k], in nats, for each example.

    q is 1 - label_smoothing at the label, plus label_smoothing / K everywhere (Szegedy
    et al. 2016, section 7).

    Args:
      logits: [N, K].
      label: int [N].
      label_smoothing: from 0 up to but not including 1.

    Returns:
      [N], dtype of logits.
    """
    if label_smoothing == 0.0:
        return optax.softmax_cross_entropy_with_integer_labels(logits, label)
    one_hot = jax.nn.one_hot(label, logits.shape[-1], dtype=logits.dtype)
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(one_hot, label_smoothing))


def evaluation_loss(logits: jax.Array, label: jax.Array) -> jax.Array:
    """The cross-entropy [N]; for label -1, that nothing is right for, a uniform guess's, log K."""
    uniform = jnp.log(jnp.asarray(logits.shape[1], logits.dtype))
    return jnp.where(label < 0, uniform, cross_entropy(logits, jnp.maximum(label, 0)))
