"""Per-example losses: logits [N, K] and labels [N] to [N], in float32."""

import inspect
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax

from ssanet_jax.errors import ConfigError

LossFn = Callable[[jax.Array, jax.Array], jax.Array]


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


# The choices of `config.loss`. A loss with an argument `label_smoothing` gets the config's.
LOSSES: dict[str, Callable[..., jax.Array]] = {'cross_entropy': cross_entropy}


def make_loss(name: str, *, label_smoothing: float = 0.0) -> LossFn:
    """Looks up a training loss.

    Raises:
      ConfigError: `LOSSES` has no such name, or the loss does not take label smoothing.
    """
    if name not in LOSSES:
        raise ConfigError(
            f'config.loss={name!r} is not known; choose one of {", ".join(LOSSES)}, or add yours '
            'to ssanet_jax.training.losses.LOSSES in the recipe.'
        )
    loss = LOSSES[name]
    if not label_smoothing:
        return loss
    if 'label_smoothing' not in inspect.signature(loss).parameters:
        raise ConfigError(
            f'config.label_smoothing={label_smoothing} has no effect with config.loss={name!r}; '
            'set it to 0.'
        )
    return partial(loss, label_smoothing=label_smoothing)


def evaluation_loss(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Cross-entropy per example [N]; log K, that of a uniform guess, where the label is -1."""
    uniform = jnp.log(jnp.asarray(logits.shape[1], logits.dtype))
    return jnp.where(label < 0, uniform, cross_entropy(logits, jnp.maximum(label, 0)))
