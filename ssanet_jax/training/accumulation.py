"""Gradients of a batch from smaller parts of it, computed one after the other."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ssanet_jax.training.metrics import Metrics

# Of running statistics, a part of the batch and its number: the gradient, and the statistics after
# it with the sums of its metrics.
GradientFn = Callable[[Any, Mapping[str, Any], jax.Array | None], tuple[Any, tuple[Any, Metrics]]]


def accumulate(
    gradient: GradientFn, batch_stats: Any, batch: Mapping[str, Any], count: int
) -> tuple[Any, tuple[Any, Metrics]]:
    """Sums the gradients and the metrics of `count` equal parts of a batch.

    The parts are consecutive examples. Each normalizes by its own statistics and moves the running
    ones, as with several backward passes in torch. Activations of one part at a time are in memory.
    """
    if count == 1:
        return gradient(batch_stats, batch, None)
    parts = jax.tree.map(lambda a: a.reshape(count, a.shape[0] // count, *a.shape[1:]), batch)
    first = jax.tree.map(lambda a: a[0], parts)
    shapes, (_, metrics) = jax.eval_shape(gradient, batch_stats, first, jnp.uint32(0))
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), (shapes, metrics))

    def add(carry: Any, part: Any) -> tuple[Any, None]:
        grads, batch_stats, total = carry
        more, (batch_stats, metrics) = gradient(batch_stats, *part)
        return (jax.tree.map(jnp.add, grads, more), batch_stats, total + metrics), None

    numbers = jnp.arange(count, dtype=jnp.uint32)
    start = zeros[0], batch_stats, zeros[1]
    (grads, batch_stats, total), _ = jax.lax.scan(add, start, (parts, numbers))
    return grads, (batch_stats, total)
