"""Maps h W + b of a narrow activation h: moments and products without the wide result.

In a bottleneck the input h of the last convolution is a quarter as wide as its output, and
every statistic of the output can be computed from h. By default, autodiff and XLA store the
wide output and read it again for each statistic and each gradient; the functions here do not.
docs/performance.md has the algebra.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ssanet_jax.layers.conv_pool import pointwise_conv
from ssanet_jax.layers.feature_map import flatten_pixels, reduction_dtype, require_examples


class Moments(NamedTuple):
    """First and second moments of h [N, H, W, K], taken around a shift near its mean.

    Attributes:
      centered: h - shift, [N, H, W, K], in the dtype of h.
      shift: one number per channel, [K]; constant under differentiation.
      mean: of `centered` over each image, [N, K].
      second: of `centered` over all pixels, E[centered^T centered], [K, K].
    """

    centered: jax.Array
    shift: jax.Array
    mean: jax.Array
    second: jax.Array


def moments(h: jax.Array) -> Moments:
    """Computes the moments that determine the BatchNorm statistics of any 1x1 convolution of h.

    Raises:
      ValueError: h is empty.
    """
    require_examples(h)
    stats = reduction_dtype(h.dtype)
    mean = jnp.mean(h.astype(stats), axis=(1, 2))  # [N, K]
    shift = jax.lax.stop_gradient(jnp.mean(mean, axis=0).astype(h.dtype))  # [K]
    centered = h - shift
    second = _second_moments(centered)
    shift = shift.astype(stats)
    return Moments(centered, shift, mean - shift, second)


@jax.custom_jvp
def _second_moments(x: jax.Array) -> jax.Array:
    """E[x^T x] over all pixels, [K, K]."""
    return contract_pixels(x, x) / (x.size // x.shape[-1])


@_second_moments.defjvp
def _second_moments_jvp(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (x,), (dx,) = primals, tangents
    # The gradient is thus one product of x, where autodiff's is the sum of two.
    half = contract_pixels(dx, x) / (x.size // x.shape[-1])
    return _second_moments(x), half + half.T


class AffineMap(NamedTuple):
    """The feature map h weight + bias, [N, H, W, C], represented without computing it.

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


def affine(h: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
    """The product h weight + bias.

    Args:
      h: [N, H, W, K].
      weight: [K, C]; the product runs in the dtype of h.
      bias: [C].

    Returns:
      [N, H, W, C] in the dtype of h.
    """
    y = _product(h, weight)
    # Broadcast before it is rounded, so that its gradient is summed in the dtype of bias.
    return y + jnp.broadcast_to(bias, y.shape).astype(y.dtype)


def gated_affine(
    h: jax.Array, logit: jax.Array, weight: jax.Array, bias: jax.Array, *, train: bool
) -> jax.Array:
    """sigmoid(logit) * (h weight + bias); logit is [N, H, W, 1], the rest as in `affine`.

    With `train`, computed as (gate h) weight + gate bias, so that its gradients need no wide array
    but the cotangent. TPUs compute gate bias separately. Elsewhere the gate becomes one more
    channel of gate h, and bias one more row of weight: convolution libraries fuse the addition of a
    shortcut, but not of another product. Without `train`, GPUs do the same; other platforms gate
    the product, since their compilers fuse gate and shortcut with it.
    """
    arguments = h, jax.nn.sigmoid(logit), weight, bias
    if train:
        return jax.lax.platform_dependent(*arguments, tpu=_bias_apart, default=_bias_as_channel)
    return jax.lax.platform_dependent(
        *arguments, cuda=_bias_as_channel, rocm=_bias_as_channel, default=_gated_product
    )


def _bias_apart(h: jax.Array, gate: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
    return _product(_gated(h, gate), weight) + (gate * bias).astype(h.dtype)


def _bias_as_channel(
    h: jax.Array, gate: jax.Array, weight: jax.Array, bias: jax.Array
) -> jax.Array:
    # Padded to eight channels: odd numbers of channels are slow.
    one = jnp.pad(gate.astype(h.dtype), ((0, 0),) * 3 + ((0, 7),))
    h = jnp.concatenate([_gated(h, gate), one], axis=-1)
    weight = jnp.concatenate([weight, jnp.pad(bias[None], ((0, 7), (0, 0)))])  # [K + 8, C]
    return _product(h, weight)


def _gated_product(h: jax.Array, gate: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
    return _gated(affine(h, weight, bias), gate)


def _gated(x: jax.Array, gate: jax.Array) -> jax.Array:
    return (gate * x.astype(gate.dtype)).astype(x.dtype)


def _product(h: jax.Array, weight: jax.Array) -> jax.Array:
    """The product h weight in the dtype of h, with a gradient of weight in weight's own."""
    if h.dtype == weight.dtype:
        return pointwise_conv(h, weight)
    try:
        return _mixed_product(h, weight)
    except TypeError as error:
        if 'forward-mode' not in str(error):
            raise
        raise TypeError(
            'Forward-mode differentiation (jax.jvp) of a folded tail needs activations and weights '
            f'of one dtype; got {h.dtype} and {weight.dtype}. Compute in {weight.dtype}, or set '
            "tail='plain'."
        ) from error


@jax.custom_vjp
def _mixed_product(h: jax.Array, weight: jax.Array) -> jax.Array:
    """`_product` of two dtypes.

    Autodiff would round the gradient of weight to the dtype of h, and BatchNorm's gradient
    subtracts from it what is nearly as large.
    """
    return pointwise_conv(h, weight.astype(h.dtype))


def _mixed_product_fwd(
    h: jax.Array, weight: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return pointwise_conv(h, weight.astype(h.dtype)), (h, weight)


def _mixed_product_bwd(
    residuals: tuple[jax.Array, jax.Array], d: jax.Array
) -> tuple[jax.Array, jax.Array]:
    h, weight = residuals
    return pointwise_conv(d, weight.T.astype(d.dtype)), contract_pixels(h, d)


_mixed_product.defvjp(_mixed_product_fwd, _mixed_product_bwd)


def contract_pixels(a: jax.Array, b: jax.Array) -> jax.Array:
    """The sum of a^T b over all pixels, from [N, H, W, K] and [N, H, W, C].

    Returns:
      [K, C] in `reduction_dtype`.
    """

    def matrices(a: jax.Array, b: jax.Array) -> jax.Array:
        return contract(flatten_pixels(a), flatten_pixels(b), (0,))

    def contract(a: jax.Array, b: jax.Array, axes: tuple[int, ...] = (0, 1, 2)) -> jax.Array:
        return jax.lax.dot_general(
            a, b, ((axes, axes), ((), ())), preferred_element_type=reduction_dtype(a.dtype)
        )

    # XLA for CPUs transposes operands with more than two axes; other platforms keep the layout.
    return jax.lax.platform_dependent(a, b, cpu=matrices, default=contract)


def pixelwise_dot(h: jax.Array, weight: jax.Array) -> jax.Array:
    """<h[n, h, w], weight[n]> at each pixel, summed in the dtype of weight.

    Args:
      h: [N, H, W, K].
      weight: [N, K].

    Returns:
      [N, H, W].
    """
    return jnp.sum(h.astype(weight.dtype) * weight[:, None, None], axis=-1)


def dot_highest(a: jax.Array, b: jax.Array) -> jax.Array:
    """`jnp.dot` in full float32; accelerators use fewer bits by default."""
    return jnp.dot(a, b, precision='highest')
