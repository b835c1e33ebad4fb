"""Products of a narrow activation with a 1x1 convolution's kernel, and their short gradients.

In a bottleneck the input h of the last convolution is a quarter as wide as its output, and
every statistic of the output can be had from h. Left to themselves, autodiff and XLA store
the wide output and read it again for each statistic and each gradient; the functions here do
not. docs/performance.md has the algebra.

They multiply matrices of two axes, since XLA transposes operands of more on a CPU, and take
their branches by `where`, whose result XLA computes once, not once for every reader.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax import layers


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    window_strides: Sequence[int],
    padding: Any,
    **options: Any,
) -> jax.Array:
    """`jax.lax.conv_general_dilated`, for `nn.Conv`; a 1x1 kernel becomes a matrix product.

    x is [N, H, W, K] and kernel [height, width, K, C].
    """
    if kernel.shape[:2] != (1, 1):
        return jax.lax.conv_general_dilated(x, kernel, window_strides, padding, **options)
    rows, columns = window_strides
    x = x[:, ::rows, ::columns]
    y = _dot(_rows(x), kernel[0, 0], x.dtype)  # [NHW, C]
    return y.reshape(*x.shape[:3], -1)


@jax.custom_vjp
def relu(x: jax.Array) -> jax.Array:
    """max(x, 0) for x [..., C]; its gradient needs nothing but the output."""
    rows = _rows(x)
    return jnp.where(rows > 0, rows, jnp.zeros_like(rows)).reshape(x.shape)


def _relu_fwd(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = relu(x)
    return y, y


def _relu_bwd(y: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    rows = _rows(dy)
    return (jnp.where(_rows(y) > 0, rows, jnp.zeros_like(rows)).reshape(y.shape),)


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


class Moments(NamedTuple):
    """First and second moments of h [N, H, W, K], taken around a shift near its mean.

    Attributes:
      centred: h - shift, [N, H, W, K], in the dtype of h.
      shift: one number a channel, [K]; a constant in differentiation.
      mean: of `centred` over each image, [N, K].
      second: of `centred` over all pixels, E[centred^T centred], [K, K].
    """

    centred: jax.Array
    shift: jax.Array
    mean: jax.Array
    second: jax.Array


@jax.custom_vjp
def moments(h: jax.Array) -> Moments:
    """The moments from which a BatchNorm after a 1x1 convolution of h has its statistics."""
    stats = layers.stats_dtype(h.dtype)
    mean = jnp.mean(h.astype(stats), axis=(1, 2))  # [N, K]
    shift = jnp.mean(mean, axis=0).astype(h.dtype)  # [K]
    rows = _rows(h)
    rows = jnp.where(rows != 0, rows - shift, -shift)  # [NHW, K]
    second = _dot(rows.T, rows, stats) / rows.shape[0]  # [K, K]
    shift = shift.astype(stats)
    return Moments(rows.reshape(h.shape), shift, mean - shift, second)


def _moments_fwd(h: jax.Array) -> tuple[Moments, jax.Array]:
    result = moments(h)
    return result, result.centred


def _moments_bwd(h: jax.Array, cotangent: Moments) -> tuple[jax.Array]:
    n, height, width, _ = h.shape
    area = height * width
    second = ((cotangent.second + cotangent.second.T) / (n * area)).astype(h.dtype)
    mean = (cotangent.mean / area).astype(h.dtype)
    return (cotangent.centred + _dot(_rows(h), second, h.dtype).reshape(h.shape) + _pixels(mean),)


moments.defvjp(_moments_fwd, _moments_bwd)


class AffineMap(NamedTuple):
    """The feature map h weight + bias, [N, H, W, C], not computed.

    Attributes:
      h: [N, H, W, K].
      mean: of h over each image, [N, K].
      weight: [K, C].
      bias: [C].
    """

    h: jax.Array
    mean: jax.Array
    weight: jax.Array
    bias: jax.Array

    def value(self) -> jax.Array:
        """The feature map, in the dtype of h."""
        return affine(self.h, self.weight, self.bias)

    def split(self, groups: int) -> list['AffineMap']:
        """One map for each C / groups consecutive channels."""
        weights = jnp.split(self.weight, groups, axis=1)
        biases = jnp.split(self.bias, groups)
        return [AffineMap(self.h, self.mean, w, b) for w, b in zip(weights, biases, strict=True)]


@jax.custom_vjp
def affine(h: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
    """The product h weight + bias.

    Args:
      h: [N, H, W, K].
      weight: [K, C]; the product runs in the dtype of h.
      bias: [C].

    Returns:
      [N, H, W, C] in the dtype of h.
    """
    return _affine(h, weight, bias).astype(h.dtype)


def _affine(h: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
    y = _dot(_rows(h), weight.astype(h.dtype), h.dtype)
    return y.reshape(*h.shape[:3], -1).astype(bias.dtype) + bias


def _affine_fwd(h: jax.Array, weight: jax.Array, bias: jax.Array) -> tuple[jax.Array, Any]:
    return affine(h, weight, bias), (h, weight)


def _affine_bwd(residuals: Any, dy: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    h, weight = residuals
    d = _rows(dy)  # [NHW, C]
    dh = _dot(d, weight.astype(h.dtype).T, h.dtype).reshape(h.shape)
    dweight, dbias = _weight_gradients(_with_ones(h), d, weight.dtype)
    return dh, dweight, dbias


affine.defvjp(_affine_fwd, _affine_bwd)


@jax.custom_vjp
def gated_affine(h: jax.Array, logit: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
    """sigmoid(logit) * (h weight + bias); logit is [N, H, W, 1], the rest as in `affine`."""
    return (jax.nn.sigmoid(logit) * _affine(h, weight, bias)).astype(h.dtype)


def _gated_affine_fwd(
    h: jax.Array, logit: jax.Array, weight: jax.Array, bias: jax.Array
) -> tuple[jax.Array, Any]:
    return gated_affine(h, logit, weight, bias), (h, logit, weight, bias)


def _gated_affine_bwd(
    residuals: Any, dy: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    h, logit, weight, bias = residuals
    gate = _rows(jax.nn.sigmoid(logit))  # [NHW, 1]
    d = _rows(dy)  # [NHW, C]
    # The bias rides along as one more row of the weight, and ones as one more column of h, so
    # that d is read twice in all.
    augmented = jnp.concatenate([weight, bias[None]]).astype(h.dtype)  # [K + 1, C]
    t = _dot(d, augmented.T, h.dtype).astype(gate.dtype)  # [NHW, K + 1]
    gated = gate * _with_ones(_rows(h)).astype(gate.dtype)  # [NHW, K + 1]
    dlogit = (1 - gate) * jnp.sum(gated * t, axis=-1, keepdims=True)
    dh = (gate * t[:, :-1]).astype(h.dtype)
    dweight, dbias = _weight_gradients(gated.astype(h.dtype), d, weight.dtype)
    return dh.reshape(h.shape), dlogit.reshape(logit.shape), dweight, dbias


gated_affine.defvjp(_gated_affine_fwd, _gated_affine_bwd)


def _with_ones(h: jax.Array) -> jax.Array:
    return jnp.concatenate([h, jnp.ones_like(h[..., :1])], axis=-1)


def _weight_gradients(
    h: jax.Array, d: jax.Array, dtype: jax.typing.DTypeLike
) -> tuple[jax.Array, jax.Array]:
    """Those of weight [K, C] and bias [C], from h [N, H, W, K + 1] and d [NHW, C]."""
    both = _dot(_rows(h).T, d, dtype)  # [K + 1, C]
    return both[:-1], both[-1]


def agreement(h: jax.Array, weight: jax.Array) -> jax.Array:
    """<h[n, h, w], weight[n]>, [N, H, W] in float32, of h [N, H, W, K] and weight [N, K]."""
    n, height, width, k = h.shape
    pixels = h.reshape(n, height * width, k)
    s = jnp.einsum(
        'nmk,nk->nm', pixels, weight.astype(h.dtype), preferred_element_type=weight.dtype
    )
    return s.reshape(n, height, width)


def exact_dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """A product with all digits of float32, of which accelerators use fewer by default."""
    return jnp.dot(a, b, precision='highest')


def _rows(x: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1])


def _pixels(x: jax.Array) -> jax.Array:
    """[N, K] -> [N, 1, 1, K], which broadcasts over the pixels of each image."""
    return x[:, None, None]


def _dot(a: jax.Array, b: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    return jax.lax.dot(a, b, preferred_element_type=dtype)
