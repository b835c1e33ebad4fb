"""What every block here shares: BatchNorm with float32 statistics, and the input check."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

# What torch calls momentum=0.1: the share of the old running statistics that is kept.
batch_norm = partial(nn.BatchNorm, momentum=0.9, epsilon=1e-5)


he_normal = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


def stats_dtype(dtype: jax.typing.DTypeLike) -> jnp.dtype:
    """The dtype to reduce in: float32, or float64 where the input already is."""
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)


def normalize(
    x: jax.Array,
    *,
    train: bool,
    name: str,
    norm: Callable[..., nn.Module] = batch_norm,
    scale_init: nn.initializers.Initializer = nn.initializers.ones,
) -> jax.Array:
    """Batch-normalises x [..., C] over all other axes in `stats_dtype`; returns x's dtype.

    Call inside a compact method: `norm` becomes a submodule called `name`.
    """
    stats = stats_dtype(x.dtype)
    layer = norm(use_running_average=not train, dtype=stats, scale_init=scale_init, name=name)
    return layer(x.astype(stats)).astype(x.dtype)


def require_feature_map(x: jax.Array, block: str) -> None:
    """Raises ValueError or TypeError unless x is a floating-point [N, H, W, C] array."""
    if x.ndim != 4:
        raise ValueError(
            f'{block} expects a feature map [N, H, W, C], got shape {x.shape}. '
            'Add the missing axes, or flatten leading ones into N.'
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f'{block} expects floating-point features, got {x.dtype}. '
            'Convert and normalise the image first.'
        )
