"""Squeeze and Spatial Attention, the block of SSANet.

AmigoCDT 2019, "SSANet: Squash and Spatial Attention Networks", whose earlier versions say Squeeze:
https://github.com/AmigoCDT/Salient-Net/blob/master/SSANet/SSANet_en.md
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax import layers
from ssanet_jax.attention import gating

_SQUEEZE: dict[str, Callable[..., jax.Array]] = {'mean': jnp.mean, 'max': gating.largest}
_COMBINE: dict[str, Callable[..., jax.Array]] = {'sum': jnp.sum, 'mean': jnp.mean}


class SSABlock(gating.BatchNormBlock):
    """Gates each pixel by its dot product with the image's channel means::

        z[c]    = mean_{h,w} x[h, w, c]                 squeeze,  [N, 1, 1, C]
        s[h, w] = sum_c z[c] * x[h, w, c]               saliency, [N, H, W, 1]
        y       = sigmoid(BatchNorm(s)) * x             [N, H, W, C], dtype of x

    Two parameters for any C (SSANet, section 3). Both reductions and BatchNorm run in float32, or
    in float64 where x is float64. The authors' released code averages over c; BatchNorm cancels
    the factor C except through `epsilon`, which matters where s is tiny. `saliency` (s) and `gate`
    (the factor of x) are sown, both [N, H, W, groups]: apply with mutable=['intermediates'].

    Attributes:
      squeeze: 'mean' or 'max' over the pixels of each channel.
      combine: 'sum' (the paper) or 'mean' (the released code) over the channels.
      num_groups: groups of consecutive channels, each with a saliency map and two parameters.
      group_size: if positive, replaces num_groups: the channels of a group, or the largest number
        below that divides C; the released grouped form has 32.
      gate_scale: factor of the sigmoid.
      zero_init: start BatchNorm's scale at 0, so that the gate is gate_scale / 2 everywhere. With
        gate_scale=2 the block then starts as the exact identity, for use in trained networks.
      norm, axis_name, momentum, epsilon, train: see `gating.BatchNormBlock`.

    Raises:
      ValueError: x is not 4-D, the groups do not divide C, or an option is unknown.
      TypeError: x is not floating-point.

    >>> x = jnp.ones((2, 8, 8, 64))
    >>> variables = SSABlock().init(jax.random.key(0), x, train=False)
    >>> SSABlock(train=False).apply(variables, x).shape
    (2, 8, 8, 64)
    """

    squeeze: Literal['mean', 'max'] = 'mean'
    combine: Literal['sum', 'mean'] = 'sum'
    num_groups: int = 1
    group_size: int = 0
    gate_scale: float = 1.0
    zero_init: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool | None = None) -> jax.Array:
        train = nn.merge_param('train', self.train, train)
        layers.require_feature_map(x, 'SSABlock')
        grouped = split_groups(x, self.count_groups(x.shape[-1]))
        s = saliency(grouped, self.squeeze, self.combine)
        gate = self.gate_scale * nn.sigmoid(self.logit(s, train=train))
        return scale_groups(grouped, gate).astype(x.dtype)

    def logit(self, s: jax.Array, *, train: bool) -> jax.Array:
        """BatchNorm(s), [N, H, W, G]; sows `saliency` and `gate`."""
        # The mean of s can dwarf its deviation, and E[s^2] - E[s]^2 would cancel.
        options: dict[str, Any] = {'use_fast_variance': False}
        if self.zero_init:
            options['scale_init'] = nn.initializers.zeros
        logit = layers.batch_norm(s, train=train, name='bn', norm=self.norm_factory, **options)
        self.sow('intermediates', 'saliency', s)
        self.sow('intermediates', 'gate', self.gate_scale * nn.sigmoid(logit))
        return logit

    def count_groups(self, channels: int) -> int:
        """Number of saliency maps for C channels; raises ValueError for options that do not fit."""
        require_choices(self.squeeze, self.combine)
        return gating.count_groups(channels, self.num_groups, self.group_size)


def require_choices(squeeze: str, combine: str) -> None:
    """Raises ValueError for an unknown `squeeze` or `combine`."""
    gating.require_choice('SSABlock', 'squeeze', squeeze, tuple(_SQUEEZE))
    gating.require_choice('SSABlock', 'combine', combine, tuple(_COMBINE))


def split_groups(x: jax.Array, groups: int) -> jax.Array:
    """Reshapes x [N, H, W, C] to [N, H, W, G, C/G], in `reduction_dtype`; G must divide C."""
    n, h, w, c = x.shape
    return x.astype(layers.reduction_dtype(x.dtype)).reshape(n, h, w, groups, c // groups)


def saliency(grouped: jax.Array, squeeze: str, combine: str) -> jax.Array:
    """The map s [N, H, W, G] of x [N, H, W, G, C/G]."""
    by_reshape, by_product = (
        partial(form, squeeze=squeeze, combine=combine)
        for form in (_saliency_by_reshape, _saliency_by_product)
    )
    return _by_platform(by_reshape, by_product, grouped)


def scale_groups(grouped: jax.Array, gate: jax.Array) -> jax.Array:
    """The product [N, H, W, C] of x [N, H, W, G, C/G] and its gates [N, H, W, G]."""
    return _by_platform(_scale_by_reshape, _scale_by_product, grouped, gate)


def _by_platform(
    by_reshape: Callable[..., jax.Array],
    by_product: Callable[..., jax.Array],
    grouped: jax.Array,
    *arguments: jax.Array,
) -> jax.Array:
    """Calls the form that suits the platform.

    Groups of channels are free on CPUs and GPUs. A TPU would pad and copy each activation. It gets
    products with a matrix of zeros and ones, which spread NaN and infinity to other groups, and
    undoes the reshape.
    """
    if grouped.shape[-2] == 1:
        return by_reshape(grouped, *arguments)
    return jax.lax.platform_dependent(grouped, *arguments, tpu=by_product, default=by_reshape)


def _saliency_by_reshape(grouped: jax.Array, squeeze: str, combine: str) -> jax.Array:
    z = _SQUEEZE[squeeze](grouped, axis=(1, 2), keepdims=True)  # [N, 1, 1, G, C/G]
    return _COMBINE[combine](z * grouped, axis=-1)


def _saliency_by_product(grouped: jax.Array, squeeze: str, combine: str) -> jax.Array:
    x, members = _merge(grouped), _members(grouped)
    z = _SQUEEZE[squeeze](x, axis=(1, 2), keepdims=True)  # [N, 1, 1, C]
    s = jnp.dot(z * x, members, precision='highest')
    return s / grouped.shape[-1] if combine == 'mean' else s


def _scale_by_reshape(grouped: jax.Array, gate: jax.Array) -> jax.Array:
    return _merge(gate[..., None] * grouped)


def _scale_by_product(grouped: jax.Array, gate: jax.Array) -> jax.Array:
    return jnp.dot(gate, _members(grouped).T, precision='highest') * _merge(grouped)


def _merge(grouped: jax.Array) -> jax.Array:
    *pixels, groups, size = grouped.shape
    return grouped.reshape(*pixels, groups * size)


def _members(grouped: jax.Array) -> jax.Array:
    """1 where a channel belongs to a group, else 0: [C, G]."""
    *_, groups, size = grouped.shape
    return jnp.repeat(jnp.eye(groups, dtype=grouped.dtype), size, axis=0)
