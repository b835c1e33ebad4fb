"""Maps h W + b of a narrow activation h: moments and gradients without the wide result.

In a bottleneck the input h of the last convolution is a quarter as wide as its output, and
every statistic of the output can be had from h. Left to themselves, autodiff and XLA store
the wide output and read it again for each statistic and each gradient; the functions here do
not. docs/performance.md has the algebra. They can be differentiated in reverse mode only.

They multiply matrices of two axes, since XLA transposes operands of more on a CPU, and take
their branches by `where`, whose result XLA computes once, not once for every reader.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ssanet_jax.layers.feature_map import flatten_pixels, reduction_dtype


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
    stats = reduction_dtype(h.dtype)
    mean = jnp.mean(h.astype(stats), axis=(1, 2))  # [N, K]
    shift = jnp.mean(mean, axis=0).astype(h.dtype)  # [K]
    rows = flatten_pixels(h)
    rows = jnp.where(rows != 0, rows - shift, -shift)  # [NHW, K]
    second = _dot(rows.T, rows, stats) / rows.shape[0]  # [K, K]
    shift = shift.astype(stats)
    return Moments(rows.reshape(h.shape), shift, mean - shift, second)


def _moments_fwd(h: jax.Array) -> tuple[Moments, jax.Array]:
    result = moments(h)
    return result, result.centred


def _moments_bwd(centred: jax.Array, cotangent: Moments) -> tuple[jax.Array]:
    n, height, width, _ = centred.shape
    area = height * width
    second = ((cotangent.second + cotangent.second.T) / (n * area)).astype(centred.dtype)
    through_second = _dot(flatten_pixels(centred), second, centred.dtype).reshape(centred.shape)
    mean = (cotangent.mean / area).astype(centred.dtype)
    return (cotangent.centred + through_second + _pixels(mean),)


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
    y = _dot(flatten_pixels(h), weight.astype(h.dtype), h.dtype)
    return y.reshape(*h.shape[:3], -1).astype(bias.dtype) + bias


def _affine_fwd(h: jax.Array, weight: jax.Array, bias: jax.Array) -> tuple[jax.Array, Any]:
    return affine(h, weight, bias), (h, weight)


def _affine_bwd(residuals: Any, dy: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    h, weight = residuals
    d = flatten_pixels(dy)  # [NHW, C]
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
    gate = flatten_pixels(jax.nn.sigmoid(logit))  # [NHW, 1]
    d = flatten_pixels(dy)  # [NHW, C]
    # The bias rides along as one more row of the weight, and ones as one more column of h, so
    # that d is read twice in all.
    augmented = jnp.concatenate([weight, bias[None]]).astype(h.dtype)  # [K + 1, C]
    t = _dot(d, augmented.T, h.dtype).astype(gate.dtype)  # [NHW, K + 1]
    gated = gate * _with_ones(flatten_pixels(h)).astype(gate.dtype)  # [NHW, K + 1]
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
    both = _dot(flatten_pixels(h).T, d, dtype)  # [K + 1, C]
    return both[:-1], both[-1]


def pixelwise_dot(h: jax.Array, weight: jax.Array) -> jax.Array:
    """<h[n, h, w], weight[n]> at each pixel, summed in the dtype of weight.

    Args:
      h: [N, H, W, K].
      weight: [N, K].

    Returns:
      [N, H, W].
    """
    n, height, width, k = h.shape
    if h.dtype != weight.dtype:  # Converted while it is read.
        return jnp.sum(h.astype(weight.dtype) * _pixels(weight), axis=-1)
    pixels = h.reshape(n, height * width, k)
    return jnp.einsum('nmk,nk->nm', pixels, weight, precision='highest').reshape(n, height, width)


def dot_highest(a: jax.Array, b: jax.Array) -> jax.Array:
    """A product with all digits of float32, of which accelerators use fewer by default."""
    return jnp.dot(a, b, precision='highest')


def _pixels(x: jax.Array) -> jax.Array:
    """[N, K] -> [N, 1, 1, K], which broadcasts over the pixels of each image."""
    return x[:, None, None]


def _dot(a: jax.Array, b: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    return jax.lax.dot(a, b, preferred_element_type=dtype)
