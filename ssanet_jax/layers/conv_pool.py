"""Layers of convolutional networks whose gradients move less memory than XLA's own.

`relu` and `max_pool` can be differentiated in reverse mode only.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax.layers.feature_map import flatten_pixels

he_normal = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


def conv(
    features: int,
    size: int,
    *,
    stride: int = 1,
    groups: int = 1,
    bias: bool = False,
    dtype: jax.typing.DTypeLike,
    name: str,
) -> nn.Conv:
    """A `size` x `size` convolution, padded by size // 2 on every side.

    1x1 convolutions are matrix products, whose gradients XLA computes without transposing.
    """
    return nn.Conv(
        features,
        kernel_size=(size, size),
        strides=(stride, stride),
        padding=((size // 2, size // 2),) * 2,
        feature_group_count=groups,
        use_bias=bias,
        kernel_init=he_normal,
        conv_general_dilated_cls=(lambda: _pointwise) if size == groups == 1 else None,
        dtype=dtype,
        name=name,
    )


def _pointwise(
    x: jax.Array, kernel: jax.Array, window_strides: Sequence[int], *_: Any, **__: Any
) -> jax.Array:
    """Every stride-th pixel of x [N, H, W, K] times kernel [1, 1, K, C]; `conv` pads nothing."""
    rows, columns = window_strides
    x = x[:, ::rows, ::columns]
    y = jax.lax.dot(flatten_pixels(x), kernel[0, 0])  # [NHW, C]
    return y.reshape(*x.shape[:3], kernel.shape[-1])


@jax.custom_vjp
def relu(x: jax.Array) -> jax.Array:
    """max(x, 0) for x [..., C]; its gradient needs nothing but the output."""
    rows = flatten_pixels(x)
    # Kept where not a number, and computed once, where XLA computes a maximum for every reader.
    return jnp.where(rows <= 0, jnp.zeros_like(rows), rows).reshape(x.shape)


def _relu_fwd(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = relu(x)
    return y, y


def _relu_bwd(y: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    rows = flatten_pixels(dy)
    return (jnp.where(flatten_pixels(y) > 0, rows, jnp.zeros_like(rows)).reshape(y.shape),)


relu.defvjp(_relu_fwd, _relu_bwd)


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """The maxima of 3x3 windows at stride 2 with padding 1, [N, H, W, C] -> [N, H/2, W/2, C].

    The gradient goes to the first of several equal maxima, as XLA's does; it is computed from
    the position of each maximum, where XLA compares and scatters.
    """
    return nn.max_pool(x, window_shape=(3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))


def _max_pool_fwd(x: jax.Array) -> tuple[jax.Array, Any]:
    n, height, width, c = x.shape
    rows, columns = (height + 1) // 2, (width + 1) // 2
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    best = jnp.full((n, rows, columns, c), -jnp.inf, x.dtype)
    position = jnp.zeros(best.shape, jnp.uint8)
    for index, (i, j) in enumerate(_WINDOW):
        tap = padded[:, i : i + 2 * rows - 1 : 2, j : j + 2 * columns - 1 : 2]
        position = jnp.where(tap > best, jnp.uint8(index), position)
        best = jnp.maximum(tap, best)
    return max_pool(x), (position, x.shape)


def _max_pool_bwd(residuals: Any, dy: jax.Array) -> tuple[jax.Array]:
    position, (n, height, width, c) = residuals
    _, rows, columns, _ = dy.shape
    zero = jnp.zeros((), dy.dtype)
    dx = jnp.zeros((n, height + 2, width + 2, c), dy.dtype)
    for index, (i, j) in enumerate(_WINDOW):
        below, right = height + 3 - i - 2 * rows, width + 3 - j - 2 * columns
        spread = ((0, 0, 0), (i, below, 1), (j, right, 1), (0, 0, 0))
        dx += jax.lax.pad(jnp.where(position == index, dy, zero), zero, spread)
    return (dx[:, 1:-1, 1:-1],)


_WINDOW = tuple(itertools.product(range(3), repeat=2))
max_pool.defvjp(_max_pool_fwd, _max_pool_bwd)


def max_pool_ceil(x: jax.Array, size: int) -> jax.Array:
    """The maxima of `size` x `size` windows at stride 2, the last of which may hang over the edge.

    [N, H, W, C] -> [N, ceil((H - size) / 2) + 1, ..., C], as Caffe does, and torch with ceil_mode.
    """
    counts = [max(-(-(length - size) // 2), 0) + 1 for length in x.shape[1:3]]
    padding = [
        (0, max(2 * (count - 1) + size - length, 0))
        for count, length in zip(counts, x.shape[1:3], strict=True)
    ]
    return nn.max_pool(x, window_shape=(size, size), strides=(2, 2), padding=padding)


def mean_pool(x: jax.Array, size: int, *, stride: int, pad: int = 0) -> jax.Array:
    """The means of `size` x `size` windows of x [N, H, W, C]; what was padded does not count."""

    def sums(x: jax.Array) -> jax.Array:
        return nn.pool(
            x, 0.0, jax.lax.add, (size, size), (stride, stride), ((pad, pad), (pad, pad))
        )

    return sums(x) / sums(jnp.ones((1, *x.shape[1:3], 1), x.dtype))
