"""The folded form of a 1x1 convolution, its BatchNorm, attention, sum and ReLU.

The same function and the same parameters as the plain form, at a fraction of its memory
traffic: statistics, squeeze and saliency are computed from the input of the convolution, and
neither its output nor a normalised copy is kept. docs/performance.md has the algebra.
"""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax import layers, ops

ModuleFn = Callable[..., nn.Module]


Tail = Literal['auto', 'folded', 'plain']


def chooses_fold(
    tail: Tail,
    shape: tuple[int, ...],
    features: int,
    dtype: jax.typing.DTypeLike,
    norm: ModuleFn,
    attention: ModuleFn | None = None,
    *,
    train: bool,
) -> bool:
    """Whether to compute a tail in its folded form."""
    if tail == 'plain':
        return False
    return can_fold(norm, attention)


class FoldedTail(nn.Module):
    """relu(attention(BatchNorm(h W)) + shortcut), folded.

    Attributes:
      features: C.
      attention: makes a block that takes an `ops.AffineMap`, or None.
      norm: makes the `nn.BatchNorm` whose settings are used.
      scale_init: of the BatchNorm's scale.
      conv, bn: names of the submodules that hold W and the BatchNorm.
    """

    features: int
    attention: ModuleFn | None = None
    norm: ModuleFn = layers.batch_norm
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    conv: str = 'conv3'
    bn: str = 'bn3'

    @nn.compact
    def __call__(self, h: jax.Array, shortcut: jax.Array, *, train: bool) -> jax.Array:
        """Returns [N, H, W, C] from h [N, H, W, K] and shortcut [N, H, W, C]."""
        y: Any = fold(
            h,
            self.features,
            train=train,
            norm=self.norm,
            scale_init=self.scale_init,
            conv=self.conv,
            bn=self.bn,
        )
        y = y.value() if self.attention is None else self.attention()(y, train=train)
        return ops.relu(y + shortcut)


def fold(
    h: jax.Array,
    features: int,
    *,
    train: bool,
    conv: str,
    bn: str,
    norm: ModuleFn = layers.batch_norm,
    scale_init: nn.initializers.Initializer = nn.initializers.ones,
) -> ops.AffineMap:
    """BatchNorm(h W) as one affine map of h, with BatchNorm's running statistics updated.

    Call inside a compact method: the submodules `conv` and `bn` get the parameters and
    statistics that `nn.Conv` and `nn.BatchNorm` would have.
    """
    stats = layers.stats_dtype(h.dtype)
    kernel = _Kernel(features, name=conv)(h.shape[-1]).astype(stats)  # [K, C]
    moments = ops.moments(h) if train else None
    weight, bias = _FoldedBatchNorm(_settings(norm), scale_init, name=bn)(kernel, moments)
    if moments is None:
        return ops.AffineMap(h, jnp.mean(h.astype(stats), axis=(1, 2)), weight, bias)
    return ops.AffineMap(moments.centred, moments.mean, weight, bias)


def can_fold(norm: ModuleFn, attention: ModuleFn | None) -> bool:
    """Whether the algebra covers these: flax's own BatchNorm, and SSA by the mean or nothing."""
    block = attention(parent=None) if attention is not None else None
    return _settings(norm) is not None and (block is None or getattr(block, 'takes_affine', False))


def _settings(norm: ModuleFn) -> dict[str, Any] | None:
    """The fields of the BatchNorm that `norm` makes, or None if it is another layer."""
    layer = norm(parent=None)
    if type(layer) is not nn.BatchNorm:
        return None
    fields = ('momentum', 'epsilon', 'axis_name', 'axis_index_groups')
    used = {field: getattr(layer, field) for field in fields}
    known = nn.BatchNorm(**used, use_fast_variance=layer.use_fast_variance, parent=None)
    return used if layer == known else None


class _Kernel(nn.Module):
    """Holds what `nn.Conv(features, (1, 1), use_bias=False)` would."""

    features: int

    @nn.compact
    def __call__(self, channels: int) -> jax.Array:
        kernel = self.param('kernel', layers.he_normal, (1, 1, channels, self.features))
        return kernel[0, 0]


class _FoldedBatchNorm(nn.Module):
    """Holds what `nn.BatchNorm` would, and folds it into the kernel before it.

    Statistics are the exact ones of the product: h is centred before its second moments are
    taken, so that the variance loses no digits where means are large; over devices, means
    are combined around the running mean.
    """

    settings: dict[str, Any]
    scale_init: nn.initializers.Initializer

    @nn.compact
    def __call__(
        self, kernel: jax.Array, moments: ops.Moments | None
    ) -> tuple[jax.Array, jax.Array]:
        """The weight [K, C] and bias [C] to apply to `moments.centred`, or to h itself."""
        channels, dtype = kernel.shape[-1], kernel.dtype
        scale = self.param('scale', self.scale_init, (channels,)).astype(dtype)
        bias = self.param('bias', nn.initializers.zeros, (channels,)).astype(dtype)
        mean = self.variable('batch_stats', 'mean', jnp.zeros, (channels,))
        var = self.variable('batch_stats', 'var', jnp.ones, (channels,))
        if moments is None:
            factor = scale * jax.lax.rsqrt(var.value.astype(dtype) + self.settings['epsilon'])
            return kernel * factor, bias - mean.value.astype(dtype) * factor

        shift = ops.exact_dot(moments.shift, kernel)  # [C]; the rest is relative to it
        batch_mean, batch_var = _product_moments(moments, kernel)
        batch_mean, batch_var = self._over_devices(
            batch_mean, batch_var, origin=mean.value.astype(dtype) - shift
        )
        if not self.is_initializing():
            keep = self.settings['momentum']
            mean.value = keep * mean.value + (1 - keep) * (batch_mean + shift)
            var.value = keep * var.value + (1 - keep) * batch_var
        factor = scale * jax.lax.rsqrt(batch_var + self.settings['epsilon'])
        return kernel * factor, bias - batch_mean * factor

    def _over_devices(
        self, mean: jax.Array, var: jax.Array, origin: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Moments over all devices that share statistics, taken around `origin`."""
        axis, groups = self.settings['axis_name'], self.settings['axis_index_groups']
        if axis is None or self.is_initializing():
            return mean, var
        offset = mean - origin
        both = jnp.stack([offset, var + offset**2])
        offset_all, second = jax.lax.pmean(both, axis, axis_index_groups=groups)
        return mean + (offset_all - offset), jnp.maximum(second - offset_all**2, 0)


def _product_moments(moments: ops.Moments, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and variance [C] of `moments.centred` times kernel [K, C]."""
    mean = jnp.mean(moments.mean, axis=0)  # [K]
    covariance = moments.second - mean[:, None] * mean  # [K, K]
    var = jnp.sum(kernel * ops.exact_dot(covariance, kernel), axis=0)
    return ops.exact_dot(mean, kernel), jnp.maximum(var, 0)
