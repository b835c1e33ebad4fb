"""Convolutions, ReLU and pooling, in the form that suits each platform's compiler.

Where compilers want different programs, `jax.lax.platform_dependent` chooses when the program is
lowered, so that one traced function compiles well for any of them. docs/performance.md has the
counts. All can be differentiated in forward and reverse mode.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax.layers.feature_map import flatten_pixels

Padding = Sequence[tuple[int, int]]

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
    """A `size` x `size` convolution, padded by size // 2 on every side."""
    return nn.Conv(
        features,
        kernel_size=(size, size),
        strides=(stride, stride),
        padding=((size // 2, size // 2),) * 2,
        feature_group_count=groups,
        use_bias=bias,
        kernel_init=he_normal,
        conv_general_dilated_cls=(lambda: _conv_1x1) if size == groups == 1 else None,
        dtype=dtype,
        name=name,
    )


def _conv_1x1(
    x: jax.Array, kernel: jax.Array, window_strides: Sequence[int], *_: Any, **__: Any
) -> jax.Array:
    """Stands for `lax.conv_general_dilated` where `conv` pads nothing."""
    return pointwise_conv(x, kernel[0, 0], window_strides[0])


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def pointwise_conv(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """A 1x1 convolution of x [N, H, W, K] with kernel [K, C], without padding.

    TPUs and GPUs get a convolution, which keeps their layouts of x. XLA for CPUs transposes the
    operands of a convolution's weight gradient, so CPUs get a matrix product in training.
    """
    return _as_convolution(x, kernel, stride)


@pointwise_conv.defjvp
def _pointwise_conv_jvp(
    stride: int, primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array]:
    cpu, others = (
        lambda primals, tangents, conv=conv: jax.jvp(
            partial(conv, stride=stride), primals, tangents
        )
        for conv in (_as_matrices, _as_convolution)
    )
    return jax.lax.platform_dependent(primals, tangents, cpu=cpu, default=others)


def _as_convolution(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel[None, None],
        window_strides=(stride, stride),
        padding='VALID',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )


def _as_matrices(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    x = x[:, ::stride, ::stride]
    y = jax.lax.dot(flatten_pixels(x), kernel)  # [NHW, C]
    return y.reshape(*x.shape[:3], kernel.shape[-1])


@jax.custom_jvp
def relu(x: jax.Array) -> jax.Array:
    """max(x, 0), with a gradient computed from the output alone."""
    return jnp.maximum(x, 0)


@relu.defjvp
def _relu_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (dx,) = primals, tangents
    # XLA for CPUs recomputes a maximum in each consumer, but a select only once.
    y = jax.lax.platform_dependent(
        x, cpu=lambda x: jnp.where(x <= 0, jnp.zeros_like(x), x), default=relu.fun
    )
    # Not `y > 0`: XLA would rewrite it as `x > 0` and keep x.
    return y, jnp.where(y != 0, dx, jnp.zeros_like(dx))


@jax.custom_jvp
def max_pool(x: jax.Array) -> jax.Array:
    """The maxima of 3x3 windows at stride 2 with padding 1, to [N, ceil(H/2), ceil(W/2), C].

    The gradient goes to the first of several equal maxima. TPUs get XLA's own gradient; elsewhere
    it is computed from the position of each maximum, which moves less memory.
    """
    return nn.max_pool(x, window_shape=(3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))


@max_pool.defjvp
def _max_pool_jvp(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (x,), (dx,) = primals, tangents
    y = max_pool(x)
    return y, jax.lax.platform_dependent(
        x, dx, tpu=_max_pool_tangent, default=_max_pool_tangent_by_position
    )


def _max_pool_tangent(x: jax.Array, dx: jax.Array) -> jax.Array:
    return jax.jvp(max_pool.fun, (x,), (dx,))[1]


def _max_pool_tangent_by_position(x: jax.Array, dx: jax.Array) -> jax.Array:
    best, *others = _window_taps(x, -jnp.inf)
    position = jnp.zeros(best.shape, jnp.uint8)
    for index, tap in enumerate(others, start=1):
        position = jnp.where(tap > best, jnp.uint8(index), position)
        best = jnp.maximum(tap, best)
    dy = jnp.zeros(best.shape, dx.dtype)
    for index, tap in enumerate(_window_taps(dx, 0)):
        dy += jnp.where(position == index, tap, jnp.zeros_like(tap))
    return dy


def _window_taps(x: jax.Array, padding: float) -> list[jax.Array]:
    """Entry (i, j) of each window of `max_pool`, for the nine (i, j), in its result's shape."""
    rows, columns = ((length + 1) // 2 * 2 for length in x.shape[1:3])
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=padding)
    return [x[:, i : i + rows - 1 : 2, j : j + columns - 1 : 2] for i in range(3) for j in range(3)]


def max_pool_ceil(x: jax.Array, size: int) -> jax.Array:
    """The maxima of `size` x `size` windows at stride 2; the last may extend past the edge.

    [N, H, W, C] -> [N, ceil((H - size) / 2) + 1, ..., C], as Caffe does, and torch with ceil_mode.
    """
    padding = _ceil_padding(x, size)
    return nn.max_pool(x, window_shape=(size, size), strides=(2, 2), padding=padding)


def mean_pool(x: jax.Array, size: int, *, stride: int, pad: int = 0) -> jax.Array:
    """The means of `size` x `size` windows of x [N, H, W, C]; padding is excluded."""
    return _mean_pool(x, size, stride, [(pad, pad), (pad, pad)])


def mean_pool_ceil(x: jax.Array, size: int) -> jax.Array:
    """The means of the windows of `max_pool_ceil`; pixels past the edge are excluded."""
    return _mean_pool(x, size, 2, _ceil_padding(x, size))


def _mean_pool(x: jax.Array, size: int, stride: int, padding: Padding) -> jax.Array:
    def sums(x: jax.Array) -> jax.Array:
        return nn.pool(x, 0.0, jax.lax.add, (size, size), (stride, stride), padding)

    return sums(x) / sums(jnp.ones((1, *x.shape[1:3], 1), x.dtype))


def _ceil_padding(x: jax.Array, size: int) -> Padding:
    """Pads x [N, H, W, C] at the end so that windows at stride 2 cover every pixel."""
    counts = [max(-(-(length - size) // 2), 0) + 1 for length in x.shape[1:3]]
    return [
        (0, max(2 * (count - 1) + size - length, 0))
        for count, length in zip(counts, x.shape[1:3], strict=True)
    ]
