"""Input check, reduction dtype and other helpers of all layers."""

import math

import jax
import jax.numpy as jnp


def reduction_dtype(dtype: jax.typing.DTypeLike) -> jnp.dtype:
    """Dtype of reductions: float32, or float64 for float64 inputs."""
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)


def flatten_pixels(x: jax.Array) -> jax.Array:
    """Reshapes [..., C] to [M, C]."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])  # -1 would not do for no pixels


def require_examples(x: jax.Array) -> None:
    """Raises ValueError if x is empty, since BatchNorm needs values for its statistics."""
    if 0 in x.shape[1:]:
        raise ValueError(_too_small('BatchNorm', x))
    if x.size == 0:
        raise ValueError(
            f'BatchNorm has no statistics of an empty batch, of shape {x.shape}; skip such batches '
            'in training, or call the network with train=False.'
        )


def require_feature_map(x: jax.Array, block: str) -> None:
    """Raises ValueError or TypeError unless x is a floating-point [N, H, W, C] array of pixels.

    N may be 0.
    """
    if x.ndim != 4:
        raise ValueError(
            f'{block} expects a feature map [N, H, W, C], got shape {x.shape}. '
            'Add the missing axes, or flatten leading ones into N.'
        )
    if 0 in x.shape[1:]:
        raise ValueError(_too_small(block, x))
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f'{block} expects floating-point features, got {x.dtype}. '
            'Convert and normalize the image first.'
        )


def _too_small(block: str, x: jax.Array) -> str:
    return (
        f'{block} got an empty feature map of shape {x.shape}: the images are too small for this '
        'network; use larger images or another network.'
    )
